//! The guest's file system as a desk sees it, while the machine stands still.

use env86_devices::fs::{Errno, FsError, FsResult, Maker, S_IFREG, Timestamp};

use crate::Computer;

impl Computer {
    /// A file of the file system that the guest sees over 9p, by its path from that one's root. Symbolic links
    /// are not followed. [`FsError::Pending`]: it can be asked for again after
    /// [`Computer::data_arrived`]. What the guest has not written back from its cache is not in it.
    pub fn read_file(&mut self, path: &str) -> FsResult<Vec<u8>> {
        let p9 = self.pc.board.p9.as_mut().ok_or(Errno::ENOENT)?;
        let (fs, store) = (&p9.server.fs, &mut *p9.server.store);
        fs.read_all(store, fs.resolve(path.as_bytes())?)
    }

    /// Makes a file there, of the superuser's and readable by all, or gives one that is there another content.
    /// Its directory has to be there. A guest that has looked before, and keeps what it saw, may not see it.
    pub fn write_file(&mut self, path: &str, content: &[u8]) -> FsResult<()> {
        let board = &mut self.pc.board;
        let now = Timestamp::from_unix_ns(board.clock().unix_millis().max(0) as u64 * 1_000_000);
        let p9 = board.p9.as_mut().ok_or(Errno::ENOENT)?;
        let (fs, store) = (&mut p9.server.fs, &mut *p9.server.store);
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = fs.resolve(dir.as_bytes())?;
        let ino = match fs.lookup(dir, name.as_bytes()) {
            Err(FsError::Errno(Errno::ENOENT)) => {
                fs.create(dir, name.as_bytes(), Maker { mode: S_IFREG | 0o644, uid: 0, gid: 0, now })?
            }
            found => found?,
        };
        fs.resize(ino, 0, now)?;
        fs.write(store, ino, 0, content, now)
    }
}
