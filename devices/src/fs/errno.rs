//! The error numbers of Linux on i386, which 9P2000.L carries as they are.

use thiserror::Error;

/// One error number (`asm-generic/errno-base.h` and `errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("errno {0}")]
pub struct Errno(pub u32);

#[allow(missing_docs, reason = "the names are Linux's own")]
impl Errno {
    pub const EPERM: Self = Self(1);
    pub const ENOENT: Self = Self(2);
    pub const EINTR: Self = Self(4);
    pub const EIO: Self = Self(5);
    pub const EBADF: Self = Self(9);
    pub const EBUSY: Self = Self(16);
    pub const EEXIST: Self = Self(17);
    pub const ENOTDIR: Self = Self(20);
    pub const EISDIR: Self = Self(21);
    pub const EINVAL: Self = Self(22);
    pub const EMFILE: Self = Self(24);
    pub const EFBIG: Self = Self(27);
    pub const ENOSPC: Self = Self(28);
    pub const EMLINK: Self = Self(31);
    pub const ENAMETOOLONG: Self = Self(36);
    pub const ENOLCK: Self = Self(37);
    pub const ENOTEMPTY: Self = Self(39);
    pub const ENODATA: Self = Self(61);
    pub const EPROTO: Self = Self(71);
    pub const EMSGSIZE: Self = Self(90);
    pub const EOPNOTSUPP: Self = Self(95);
    pub const ESTALE: Self = Self(116);
}

/// Why an operation on the filesystem did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FsError {
    /// It failed.
    #[error(transparent)]
    Errno(#[from] Errno),
    /// The bytes of the image are still on their way: nothing is lost by asking again later.
    #[error("Waiting for the content of the image")]
    Pending,
}

/// What the operations of the filesystem answer.
pub type FsResult<T> = Result<T, FsError>;
