//! What machines with names need of the system: a folder that is the user's alone, sockets in it, and processes
//! that outlive the terminal that they were started at.

use std::env;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Signal, getpid, getuid, kill_process, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdout};

pub use std::os::unix::net::{UnixListener, UnixStream};

/// A folder for the user alone.
const PRIVATE: u32 = 0o700;

/// The folder for what the user's running programs keep. Made if it is not there; an error if it is another's.
pub fn runtime_folder() -> io::Result<PathBuf> {
    let given = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let user = getuid().as_raw();
    let usual = || Some(PathBuf::from(format!("/run/user/{user}"))).filter(|path| path.is_dir());
    let folder = match given.or_else(usual) {
        Some(folder) => folder.join("env86"),
        None => env::temp_dir().join(format!("env86-{user}")),
    };
    make_private(&folder)?;
    Ok(folder)
}

/// Makes a folder for the user alone. One that is there has to be the user's, and is closed to others.
fn make_private(folder: &Path) -> io::Result<()> {
    let told = |error: io::Error, what: &str| {
        io::Error::new(error.kind(), format!("`{}` {what}: {error}", folder.display()))
    };
    match DirBuilder::new().mode(PRIVATE).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(told(error, "cannot be made"));
        }
        _ => {}
    }
    // A link could lead to what is another's.
    let found = fs::symlink_metadata(folder).map_err(|error| told(error, "cannot be used"))?;
    if !found.is_dir() || found.uid() != getuid().as_raw() {
        let why = format!("`{}` is not a folder of yours", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(folder, Permissions::from_mode(PRIVATE))
            .map_err(|error| told(error, "cannot be closed to others"))?;
    }
    Ok(())
}

/// Listens at a socket that only the user can connect to.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A path leads to this open file.
pub fn is_at(file: &File, path: &Path) -> bool {
    let of = |data: fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata().map(of), fs::metadata(path).map(of)), (Ok(file), Ok(found)) if file == found)
}

/// Gives an open file its permissions.
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode & 0o777))
}

/// Leaves the terminal, whose signals are not for this process any more.
pub fn leave_terminal() -> io::Result<()> {
    setsid()?;
    Ok(())
}

/// Standard output and standard error go to this file.
pub fn redirect_output(to: &File) -> io::Result<()> {
    dup2_stdout(to)?;
    dup2_stderr(to)?;
    Ok(())
}

/// Asks this process to end, as another would.
pub fn end_this_process() -> io::Result<()> {
    kill_process(getpid(), Signal::TERM)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_the_user_alone_is_that_and_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a");
        make_private(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        make_private(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, PRIVATE);
        std::os::unix::fs::symlink(&folder, dir.path().join("link")).unwrap();
        assert!(
            make_private(&dir.path().join("link")).unwrap_err().to_string().contains("not a folder of yours")
        );
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_private(&dir.path().join("file")).is_err());
    }
}
