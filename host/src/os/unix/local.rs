//! Unix sockets.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A connection to a program of this host.
pub type LocalStream = tokio::net::UnixStream;

/// A socket in the file system. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalListener {
    /// Listens at a path. A socket that no program listens at any more is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let is_socket = path.symlink_metadata().is_ok_and(|data| data.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if is_socket && std::os::unix::net::UnixStream::connect(path).err().is_some_and(refused) {
            // If it cannot be removed, binding says so.
            let _ = std::fs::remove_file(path);
        }
        Ok(Self { listener: UnixListener::bind(path)?, path: path.into() })
    }

    /// Waits for a client.
    pub async fn accept(&self) -> io::Result<LocalStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        // Another may have removed it.
        let _ = std::fs::remove_file(&self.path);
    }
}
