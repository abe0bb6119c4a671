//! Calls: the caller opens a channel and sends two values, [`Call`] and an argument. The other side answers
//! with [`Reply`] and a result, which is null after an error. If [`Reply::goes_on`] is false, both close
//! the channel; else it belongs to the method.
//!
//! There are two kinds of arguments: that of a function is an array ([`crate::value::arguments`]) or null;
//! that of a stream is a bare value. The methods of the Go service keep its names, its shapes and the order
//! of its keys. Those of this project are [`HELLO`] to [`PUT`].

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The service's version. Function without arguments; gives a text. The Go service's is `dev`; that of this
/// project begins with [`OURS`].
pub const VERSION: &str = "vm.Version";
/// What the version of this project's service begins with.
pub const OURS: &str = "env86 ";
/// Sets up the network anew after a restore. Function without arguments.
pub const RESET_NETWORK: &str = "vm.ResetNetwork";
/// Function `[path]`; gives [`Entry`]. Follows symbolic links.
pub const STAT: &str = "vm.Stat";
/// Function `[path]`; gives the file's bytes.
pub const READ_FILE: &str = "vm.ReadFile";
/// Function `[path]`; gives a list of [`Entry`] in the order of their names, or null for an empty directory.
pub const READ_DIR: &str = "vm.ReadDir";
/// Function `[path, bytes]`; makes or replaces a file, with mode 0644.
pub const WRITE_FILE: &str = "vm.WriteFile";
/// Function `[path]`; makes a directory and those above it.
pub const MAKE_DIR: &str = "vm.MakeDir";
/// Function `[path]`; removes whatever there is, which may be nothing.
pub const REMOVE_ALL: &str = "vm.RemoveAll";
/// Function `[old, new]`.
pub const RENAME: &str = "vm.Rename";
/// Stream: [`Run`]; gives the process's number. Then the guest sends [`RunOutput`] values, and the host plain
/// bytes, which are the standard input.
pub const RUN: &str = "vm.Run";
/// Stream: the argument does not matter. Plain bytes both ways, of a shell at a terminal.
pub const TERMINAL: &str = "vm.Terminal";
/// Stream: a text `host:port`. Plain bytes both ways, of a TCP connection that the guest makes.
pub const DIAL: &str = "vm.Dial";
/// Stream: a directory's path. Plain 9P2000.L both ways, of the file system that is mounted there.
pub const MOUNT_9P: &str = "vm.Mount9P";
/// Function `[pid, signal]`. The Go service does nothing here.
pub const SIGNAL: &str = "vm.Signal";
/// Function `[pid]`. The Go service does nothing here.
pub const TERMINATE: &str = "vm.Terminate";

/// Ours. Stream: [`Hello`]; gives null. The first call of a host, and once a machine was restored: every
/// other channel belongs to a host that has gone.
pub const HELLO: &str = "vm.Hello";
/// Ours. Stream: [`Exec`]; gives the process's number. Then the guest sends [`FromProcess`] values and the
/// host [`ToProcess`] values. A process whose channel the host closes is ended.
pub const EXEC: &str = "vm.Exec";
/// Ours. What programs have written is written to the guest's disks and to the host.
pub const SYNC: &str = "vm.Sync";
/// Ours. Stream: a text `host:port`, where port 0 is any free one; gives the address at which the guest listens. Then
/// the guest sends [`Accepted`] for each connection, until the host closes the channel.
pub const LISTEN: &str = "vm.Listen";
/// Ours. Stream: the number of an [`Accepted`] connection; gives null. Plain bytes both ways.
pub const ACCEPT: &str = "vm.Accept";
/// Ours. Stream: a path; gives [`FileInfo`], then plain bytes to the end of the file, and EOF.
pub const GET: &str = "vm.Get";
/// Ours. Stream: [`Put`]; gives null. The host sends plain bytes and EOF, the guest one more [`Reply`] and
/// null when the file is there.
pub const PUT: &str = "vm.Put";
/// Ours. Function `[number, path]`: the folder of this number, which the host serves at the device of this mount tag
/// ([`SHARES_TAG`]), is mounted at a directory.
pub const MOUNT_SHARE: &str = "vm.MountShare";
/// The mount tag of the device for folders of the host.
pub const SHARES_TAG: &str = "org.env86.shares";

/// Which method is called: the names above, with `.` or `/` between their parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The method.
    #[serde(rename = "S")]
    pub method: String,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// Why it failed.
    #[serde(rename = "E")]
    pub error: Option<String>,
    /// The channel belongs to the method now.
    #[serde(rename = "C")]
    pub goes_on: bool,
}

/// What [`STAT`] and [`READ_DIR`] tell of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    /// It is a directory.
    pub is_dir: bool,
    /// Always 0.
    pub ctime: i64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes.
    pub size: i64,
    /// Its name in its directory.
    pub name: String,
}

/// The program of [`RUN`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Run {
    /// Its name, looked for in the service's PATH, or its path.
    pub name: String,
    /// Its arguments, without its name.
    pub args: Option<Vec<String>>,
    /// Where it works; the service's own directory if empty.
    pub dir: String,
    /// Its whole environment, or the service's.
    pub env: Option<Vec<String>>,
    /// It has a terminal.
    #[serde(rename = "PTY")]
    pub pty: bool,
}

/// What a program of [`RUN`] says: one of these is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunOutput {
    /// Bytes of its standard output, or of its terminal.
    pub stdout: Option<ByteBuf>,
    /// Bytes of its standard error.
    pub stderr: Option<ByteBuf>,
    /// Its status; -1 if a signal ended it. The Go service sends output after that, too.
    pub status: Option<i32>,
}

/// A connection that has come to a [`LISTEN`], and waits for [`ACCEPT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// What it is called until then.
    pub number: u32,
    /// Its other end, `host:port`.
    pub peer: String,
}

/// The argument of [`HELLO`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// The host's time: seconds and nanoseconds since 1970.
    pub time: Option<(i64, u32)>,
    /// Bytes that no one can foresee, for the kernel's generator: machines of one state must differ.
    pub entropy: ByteBuf,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines of text.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The program of [`EXEC`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// Its name, looked for in its PATH, or its path.
    pub program: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Added to the environment that its user gets.
    pub env: Vec<(String, String)>,
    /// The environment is `env` alone.
    pub env_clear: bool,
    /// Where it works; else in its user's home.
    pub dir: Option<String>,
    /// `user`, `user:group`, or numbers; else the service's own, which is root.
    pub user: Option<String>,
    /// It has a terminal of this size instead of three pipes.
    pub terminal: Option<Size>,
}

/// What a program of [`EXEC`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromProcess {
    /// Bytes of its standard output, or of its terminal.
    Out(ByteBuf),
    /// Bytes of its standard error.
    Err(ByteBuf),
    /// It has ended; nothing comes after that. The status that it gave, or the signal that ended it.
    End(Result<i32, i32>),
}

/// What a program of [`EXEC`] is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToProcess {
    /// Bytes for its standard input.
    In(ByteBuf),
    /// Its standard input ends.
    Eof,
    /// A signal, by Linux's number, for it and the processes of its group.
    Signal(i32),
    /// Its terminal has another size.
    Resize(Size),
}

/// A map of one text and a byte string, in CBOR: what [`FromProcess`] and [`ToProcess`] are if they carry bytes.
const MAP_OF_ONE: u8 = 0xa1;
const TEXT: u8 = 0x60;
const BYTES_16: u8 = 0x59;

/// Appends [`FromProcess::Out`], or [`FromProcess::Err`], with these bytes to a channel's: what
/// [`encode`](crate::value::encode) does, without a copy in between.
pub fn encode_output(is_error: bool, bytes: &[u8], channel: &mut Vec<u8>) {
    let name: &[u8; 3] = if is_error { b"Err" } else { b"Out" };
    for piece in bytes.chunks(u16::MAX.into()).filter(|piece| piece.len() > u8::MAX.into()) {
        channel.extend((8 + piece.len() as u32).to_be_bytes());
        channel.extend([MAP_OF_ONE, TEXT | name.len() as u8]);
        channel.extend(name);
        channel.push(BYTES_16);
        channel.extend((piece.len() as u16).to_be_bytes());
        channel.extend(piece);
    }
    let rest = bytes.chunks(u16::MAX.into()).last().filter(|piece| piece.len() <= u8::MAX.into());
    if let Some(rest) = rest.map(ByteBuf::from) {
        crate::value::encode(
            &if is_error { FromProcess::Err(rest) } else { FromProcess::Out(rest) },
            channel,
        );
    }
}

/// The bytes of a [`ToProcess::In`] that is written as most of them are, without a copy; nothing for what is to be read
/// as any value is.
pub fn input_bytes(item: &[u8]) -> Option<&[u8]> {
    let (head, bytes) = item.split_first_chunk::<7>()?;
    let len = u16::from_be_bytes([head[5], head[6]]);
    (head[..5] == [MAP_OF_ONE, TEXT | 2, b'I', b'n', BYTES_16] && bytes.len() == len.into()).then_some(bytes)
}

/// What [`GET`] tells of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileInfo {
    /// Permissions, as Linux numbers them.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Bytes, as they are before they are sent.
    pub size: u64,
}

/// A file for [`PUT`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Put {
    /// Where.
    pub path: String,
    /// Permissions, as Linux numbers them.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: Option<i64>,
}

/// A method's name in the form that the constants here have: `/vm/Run` is `vm.Run`.
pub fn method_name(selector: &str) -> String {
    selector.strip_prefix('/').unwrap_or(selector).replace('/', ".")
}

/// What is said about a method that there is not.
pub fn not_found(selector: &str) -> String {
    format!("not found: /{}", method_name(selector).replace('.', "/"))
}

/// What is said about a program that is in no directory of PATH.
pub fn no_program(name: &str) -> String {
    format!("exec: {name:?}: {NOT_IN_PATH}")
}

/// What is said about a program that cannot be started, with the system's reason.
pub fn cannot_start(path: &str, why: &str) -> String {
    format!("fork/exec {path}: {why}")
}

const NOT_IN_PATH: &str = "executable file not found in $PATH";
const NO_SUCH_FILE: &str = "no such file or directory";

/// Whether a program's start has failed because there is no such program.
pub fn is_missing(error: &str) -> bool {
    error.ends_with(NOT_IN_PATH) || error.starts_with("fork/exec") && error.ends_with(NO_SUCH_FILE)
}

/// Whether a program's start has failed because of the program: it is missing or cannot be executed.
pub fn is_programs(error: &str) -> bool {
    error.starts_with("fork/exec") || error.ends_with(NOT_IN_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Values, to_bytes};

    /// Bytes in hexadecimal digits, with blanks wherever they help.
    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    /// The value is written as the Go service and its host write it, and read again.
    fn same<T>(value: &T, item: &str)
    where
        T: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug,
    {
        let mut wanted = (hex(item).len() as u32).to_be_bytes().to_vec();
        wanted.extend(hex(item));
        assert_eq!(to_bytes(value), wanted);
        let mut values = Values::default();
        values.feed(&wanted);
        assert_eq!(values.read::<T>().unwrap().unwrap().0, *value);
    }

    #[test]
    fn calls_are_what_the_go_service_reads_and_writes() {
        same(&Call { method: VERSION.into() }, "a1 61 53 6a 766d2e56657273696f6e");
        same(&Call { method: RUN.into() }, "a1 61 53 66 766d2e52756e");
        same(&Reply::default(), "a2 61 45 f6 61 43 f4");
        same(&Reply { error: None, goes_on: true }, "a2 61 45 f6 61 43 f5");
        let error = Some("not found: /vm/Nope".into());
        let text = "73 6e6f7420666f756e643a202f766d2f4e6f7065";
        same(&Reply { error, goes_on: false }, &format!("a2 61 45 {text} 61 43 f4"));
        same(&"dev".to_owned(), "63 646576");
        same(&25_163u32, "19 624b");
    }

    #[test]
    fn programs_are_what_the_go_service_reads_and_writes() {
        let script = "read x; echo got $x; sleep 0.2; exit 3";
        let args = Some(vec!["-c".into(), script.into()]);
        same(
            &Run { name: "sh".into(), args, pty: true, ..Run::default() },
            "a5 64 4e616d65 62 7368 64 41726773 82 62 2d63
             78 26 7265616420783b206563686f20676f742024783b20736c65657020302e323b20657869742033
             63 446972 60 63 456e76 f6 63 505459 f5",
        );
        let bytes = |text: &str| Some(ByteBuf::from(text));
        same(
            &RunOutput { stdout: bytes("ok\r\n"), ..RunOutput::default() },
            "a3 66 5374646f7574 44 6f6b0d0a 66 537464657272 f6 66 537461747573 f6",
        );
        same(
            &RunOutput { status: Some(3), ..RunOutput::default() },
            "a3 66 5374646f7574 f6 66 537464657272 f6 66 537461747573 03",
        );
        same(
            &RunOutput { status: Some(-1), ..RunOutput::default() },
            "a3 66 5374646f7574 f6 66 537464657272 f6 66 537461747573 20",
        );
    }

    #[test]
    fn files_are_what_the_go_service_reads_and_writes() {
        same(&("/a/f".to_owned(), ByteBuf::from("hello")), "82 64 2f612f66 45 68656c6c6f");
        let entry = Entry { mtime: 0x6b02_5894, size: 5, name: "f".into(), ..Entry::default() };
        same(
            &entry,
            "a5 65 4973446972 f4 65 4374696d65 00 65 4d74696d65 1a 6b025894 64 53697a65 05 64 4e616d65 61 66",
        );
    }

    #[test]
    fn what_a_page_answers_is_read() {
        let mut values = Values::default();
        let item = hex("b9 0002 61 45 f7 61 43 f4");
        values.feed(&(item.len() as u32).to_be_bytes());
        values.feed(&item);
        assert_eq!(values.read::<Reply>().unwrap().unwrap().0, Reply::default());
    }

    #[test]
    fn our_own_values_come_back() {
        let back = |bytes: Vec<u8>| {
            let mut values = Values::default();
            values.feed(&bytes);
            values
        };
        for value in [FromProcess::Out(ByteBuf::from("x")), FromProcess::End(Ok(3)), FromProcess::End(Err(9))]
        {
            assert_eq!(back(to_bytes(&value)).read::<FromProcess>().unwrap().unwrap().0, value);
        }
        let size = Size { rows: 24, columns: 80 };
        let all = [
            ToProcess::In(ByteBuf::from("x")),
            ToProcess::Eof,
            ToProcess::Signal(2),
            ToProcess::Resize(size),
        ];
        for value in all {
            assert_eq!(back(to_bytes(&value)).read::<ToProcess>().unwrap().unwrap().0, value);
        }
        let exec = Exec { program: "sh".into(), terminal: Some(size), ..Exec::default() };
        assert_eq!(back(to_bytes(&exec)).read::<Exec>().unwrap().unwrap().0, exec);
    }

    #[test]
    fn bytes_are_carried_as_any_value_is() {
        for len in [1, 23, 24, 255, 256, 4096, 65535] {
            let bytes: Vec<u8> = (0..len).map(|n: usize| n as u8).collect();
            let buf = || ByteBuf::from(&bytes[..]);
            for (is_error, value) in [(false, FromProcess::Out(buf())), (true, FromProcess::Err(buf()))] {
                let mut channel = Vec::new();
                encode_output(is_error, &bytes, &mut channel);
                assert_eq!(channel, to_bytes(&value), "{len}");
            }
            let item = &to_bytes(&ToProcess::In(buf()))[4..];
            assert_eq!(input_bytes(item), (len > 255).then_some(&bytes[..]), "{len}");
            assert_eq!(input_bytes(&item[..item.len() - 1]), None);
        }
        // More than one value holds.
        let (bytes, mut channel, mut values) = (vec![7; 70_000], Vec::new(), Values::default());
        encode_output(false, &bytes, &mut channel);
        values.feed(&channel);
        let mut seen = Vec::new();
        while let Some((FromProcess::Out(piece), _)) = values.read().unwrap() {
            seen.extend(piece.into_vec());
        }
        assert_eq!(seen, bytes);
        assert_eq!(input_bytes(&to_bytes(&ToProcess::Eof)[4..]), None);
    }

    #[test]
    fn selectors_have_two_forms() {
        assert_eq!(method_name("/vm/Run"), RUN);
        assert_eq!(method_name("vm.Run"), RUN);
        assert_eq!(not_found("vm.Nope"), "not found: /vm/Nope");
    }
}
