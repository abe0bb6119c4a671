//! Reading tar streams: POSIX's ustar with the extensions of pax and GNU, sparse files among them.
//!
//! An archive may come from anywhere: names are given as they are, and what is kept in memory of it is bounded.
//! Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; the manual of GNU tar, appendices
//! "Basic Tar Format" and "Storing Sparse Files".

use std::collections::HashMap;
use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};
use thiserror::Error;

/// Bytes of a block, of which a tar stream consists.
const BLOCK: usize = 512;
/// Bytes of a long name or an extended header, at most.
const MAX_EXTENSION: u64 = 1 << 20;
/// Pieces of a sparse file, at most.
const MAX_PIECES: usize = 1 << 20;

/// Why a tar stream cannot be read.
#[derive(Debug, Error)]
pub enum TarError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no tar stream, or damaged.
    #[error("at byte {at}{}: {why}", .name.as_ref().map(|name| format!(", `{name}`")).unwrap_or_default())]
    Malformed {
        /// Where in the stream.
        at: u64,
        /// What is being read.
        name: Option<String>,
        /// What is wrong.
        why: String,
    },
}

/// A file, directory or what else is in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path, as it is.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    /// It has extended attributes or access control lists.
    pub has_attributes: bool,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of so many bytes, which are read next.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// One more name of the file that has this path.
    HardLink(Vec<u8>),
    /// A device: block or character, major and minor number.
    Device(bool, u32, u32),
    /// A FIFO.
    Fifo,
}

/// A piece of a sparse file that is in the archive.
#[derive(Clone, Copy, Debug)]
struct Piece {
    offset: u64,
    len: u64,
}

/// Extended headers: keys and values.
type Extensions = HashMap<String, Vec<u8>>;

/// The members of a tar stream. Read from this is the content of the member that came last.
pub struct Members<R> {
    from: R,
    /// Bytes that have been read.
    at: u64,
    /// Bytes of the member that are still in the stream, and the padding behind them.
    left: u64,
    padding: u64,
    /// The pieces of the member that are still to come, and where in it the reader is.
    pieces: std::vec::IntoIter<Piece>,
    piece: Piece,
    place: u64,
    size: u64,
    globals: Extensions,
    name: Option<String>,
}

impl<R: Read> Members<R> {
    /// The members of a stream that is not compressed.
    pub fn new(from: R) -> Self {
        Self {
            from,
            at: 0,
            left: 0,
            padding: 0,
            pieces: Vec::new().into_iter(),
            piece: Piece { offset: 0, len: 0 },
            place: 0,
            size: 0,
            globals: Extensions::new(),
            name: None,
        }
    }

    fn malformed(&self, why: impl Into<String>) -> TarError {
        TarError::Malformed { at: self.at, name: self.name.clone(), why: why.into() }
    }

    /// Fills a buffer; an error if the stream ends in it.
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), TarError> {
        match self.from.read_exact(buf) {
            Ok(()) => {
                self.at += buf.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.malformed("the archive is cut off"))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn skip(&mut self, len: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.from).take(len), &mut io::sink())?;
        self.at += skipped;
        if skipped < len { Err(self.malformed("the archive is cut off")) } else { Ok(()) }
    }

    /// The next member. What was not read of the one before is left out.
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        let left = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        self.skip(left)?;
        self.name = None;
        let (mut long_name, mut long_link) = (None, None);
        let mut extensions = self.globals.clone();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| self.malformed("its size is no number"))?;
            match header.entry_type() {
                EntryType::GNULongName => long_name = Some(self.string(size)?),
                EntryType::GNULongLink => long_link = Some(self.string(size)?),
                EntryType::XHeader => {
                    let text = self.extension(size)?;
                    self.records(&text, &mut extensions)?;
                }
                EntryType::XGlobalHeader => {
                    let text = self.extension(size)?;
                    let mut globals = std::mem::take(&mut self.globals);
                    self.records(&text, &mut globals)?;
                    extensions.extend(globals.clone());
                    self.globals = globals;
                }
                _ => return self.member(&header, size, long_name, long_link, &extensions).map(Some),
            }
        }
    }

    /// The next header; `None` at the end, which is a block of zeros or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        // A stream may end without its blocks of zeros.
        let first = loop {
            match self.from.read(&mut block[..1]) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        if first == 0 {
            return Ok(None);
        }
        self.at += 1;
        let mut rest = [0; BLOCK - 1];
        self.fill(&mut rest)?;
        block[1..].copy_from_slice(&rest);
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The sum of all bytes, with the sum's own as blanks.
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let own: u32 = block[148..156].iter().map(|byte| u32::from(*byte)).sum();
        if header.cksum().ok() != Some(sum - own + 8 * u32::from(b' ')) {
            return Err(self.malformed("this is no tar archive, or it is damaged: a header's sum is wrong"));
        }
        Ok(Some(header))
    }

    /// What a long name or an extended header holds.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(self
                .malformed(format!("an extended header has {size} bytes, and {MAX_EXTENSION} is the most")));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes)?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn string(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut bytes = self.extension(size)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }

    /// Reads records `LENGTH KEY=VALUE\n`; an empty value takes back what was said before.
    fn records(&self, text: &[u8], to: &mut Extensions) -> Result<(), TarError> {
        let wrong = || self.malformed("an extended header is malformed");
        let mut text = text;
        while !text.is_empty() {
            let blank = text.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let len = number(&text[..blank]).ok_or_else(wrong)? as usize;
            if len <= blank + 1 || len > text.len() || text[len - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &text[blank + 1..len - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            let key = String::from_utf8_lossy(&record[..equals]).into_owned();
            match &record[equals + 1..] {
                [] => drop(to.remove(&key)),
                value => drop(to.insert(key, value.into())),
            }
            text = &text[len..];
        }
        Ok(())
    }

    fn member(
        &mut self,
        header: &Header,
        size: u64,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        extensions: &Extensions,
    ) -> Result<Member, TarError> {
        let text = |key: &str| extensions.get(key).cloned();
        let path = text("GNU.sparse.name").or_else(|| text("path")).or(long_name);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        self.name = Some(String::from_utf8_lossy(&path).into_owned());
        let wrong = |what: &str| self.malformed(format!("its {what} is no number that it can be"));
        let value = |key: &str, what: &str, own: io::Result<u64>| match extensions.get(key) {
            Some(value) => number(value).ok_or_else(|| wrong(what)),
            None => own.map_err(|_| wrong(what)),
        };
        let id = |key, what, own| value(key, what, own)?.try_into().map_err(|_| wrong(what));
        let (uid, gid) = (id("uid", "owner", header.uid())?, id("gid", "group", header.gid())?);
        let size = value("size", "size", Ok(size))?;
        let mode = header.mode().map_err(|_| wrong("mode"))? & 0o7777;
        let mtime = match extensions.get("mtime") {
            Some(value) => seconds(value).ok_or_else(|| wrong("time"))?,
            None => header.mtime().map_err(|_| wrong("time"))? as i64,
        };
        let link = || {
            let link = text("linkpath").or(long_link.clone());
            link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned())
        };
        let device = |block| {
            let numbers = (header.device_major(), header.device_minor());
            match numbers {
                (Ok(Some(major)), Ok(Some(minor))) => Ok(Kind::Device(block, major, minor)),
                _ => Err(wrong("device number")),
            }
        };
        let mut has_content = false;
        let kind = match header.entry_type() {
            // Before POSIX a directory was a file whose name ends so.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                has_content = true;
                Kind::File(size)
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::HardLink(link()),
            EntryType::Block => device(true)?,
            EntryType::Char => device(false)?,
            EntryType::Fifo => Kind::Fifo,
            other => {
                return Err(self.malformed(format!(
                    "an entry of the type `{}`, which is not known here; make the archive with `tar --format=gnu`",
                    other.as_byte().escape_ascii()
                )));
            }
        };
        let has_attributes =
            extensions.keys().any(|key| key.starts_with("SCHILY.xattr.") || key.starts_with("SCHILY.acl."));
        // Only files have bytes behind them, and the header of a link tells its file's size.
        let stored = match &kind {
            Kind::File(_) | Kind::Directory => size,
            _ => 0,
        };
        (self.left, self.padding) = (stored, padding(stored));
        let (pieces, real) =
            if has_content { self.pieces_of(header, extensions, stored)? } else { (Vec::new(), 0) };
        (self.size, self.place, self.piece) = (real, 0, Piece { offset: 0, len: 0 });
        self.pieces = pieces.into_iter();
        let kind = if let Kind::File(_) = kind { Kind::File(real) } else { kind };
        Ok(Member { path, kind, mode, uid, gid, mtime, has_attributes })
    }

    /// Which pieces of a file are in the archive, and its size.
    fn pieces_of(
        &mut self,
        header: &Header,
        extensions: &Extensions,
        stored: u64,
    ) -> Result<(Vec<Piece>, u64), TarError> {
        let value = |key: &str| extensions.get(key).and_then(|value| number(value));
        let (pieces, real) = if header.entry_type() == EntryType::GNUSparse {
            self.old_map(header)?
        } else if let Some(map) = extensions.get("GNU.sparse.map") {
            let numbers: Option<Vec<u64>> = map.split(|byte| *byte == b',').map(number).collect();
            let numbers = numbers.ok_or_else(|| self.malformed("its map of pieces is malformed"))?;
            let pieces = numbers.chunks_exact(2).map(|pair| Piece { offset: pair[0], len: pair[1] });
            (pieces.collect(), value("GNU.sparse.size"))
        } else if value("GNU.sparse.major") == Some(1) {
            (self.map_before_content()?, value("GNU.sparse.realsize"))
        } else if extensions.keys().any(|key| key.starts_with("GNU.sparse.")) {
            return Err(self.malformed(
                "a sparse file of a kind that is not known; make the archive with `tar --format=gnu`",
            ));
        } else {
            return Ok((vec![Piece { offset: 0, len: stored }], stored));
        };
        let real = real.ok_or_else(|| self.malformed("a sparse file without its size"))?;
        let mut end = 0;
        for piece in &pieces {
            let next = piece.offset.checked_add(piece.len).filter(|next| *next <= real);
            match next {
                Some(next) if piece.offset >= end => end = next,
                _ => return Err(self.malformed("the pieces of a sparse file are not in order")),
            }
        }
        if pieces.iter().map(|piece| piece.len).sum::<u64>() != self.left {
            return Err(self.malformed("the pieces of a sparse file are not as long as its content"));
        }
        Ok((pieces, real))
    }

    /// The map of GNU's own format: in the header, and in blocks behind it.
    fn old_map(&mut self, header: &Header) -> Result<(Vec<Piece>, Option<u64>), TarError> {
        let wrong = |this: &Self| this.malformed("its map of pieces is malformed");
        let gnu = header.as_gnu().ok_or_else(|| wrong(self))?;
        let mut pieces = Vec::new();
        let add = |this: &Self, pieces: &mut Vec<Piece>, entries: &[GnuSparseHeader]| {
            for entry in entries.iter().filter(|entry| !entry.is_empty()) {
                match (entry.offset(), entry.length()) {
                    (Ok(offset), Ok(len)) if pieces.len() < MAX_PIECES => pieces.push(Piece { offset, len }),
                    _ => return Err(wrong(this)),
                }
            }
            Ok(())
        };
        add(self, &mut pieces, &gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes())?;
            add(self, &mut pieces, &block.sparse)?;
            more = block.is_extended();
        }
        Ok((pieces, gnu.real_size().ok()))
    }

    /// The map of pax's format 1.0: lines in front of the content, to the end of a block.
    fn map_before_content(&mut self) -> Result<Vec<Piece>, TarError> {
        let mut buffer = Vec::new();
        let mut used = 0;
        let mut line = |this: &mut Self| loop {
            if let Some(len) = buffer[used..].iter().position(|byte| *byte == b'\n') {
                let value = number(&buffer[used..used + len]);
                used += len + 1;
                return value.ok_or_else(|| this.malformed("its map of pieces is malformed"));
            }
            // A number has at most twenty digits.
            if buffer.len() - used > 20 || this.left < BLOCK as u64 {
                return Err(this.malformed("its map of pieces is malformed"));
            }
            buffer.drain(..std::mem::take(&mut used));
            let mut block = [0; BLOCK];
            this.fill(&mut block)?;
            this.left -= BLOCK as u64;
            buffer.extend(block);
        };
        let count = line(self)?;
        if count > MAX_PIECES as u64 {
            return Err(
                self.malformed(format!("a sparse file of {count} pieces, and {MAX_PIECES} is the most"))
            );
        }
        let mut pieces = Vec::new();
        for _ in 0..count {
            pieces.push(Piece { offset: line(self)?, len: line(self)? });
        }
        Ok(pieces)
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.piece.len == 0 {
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => {
                    self.piece = Piece { offset: self.size, len: 0 };
                    break;
                }
            }
        }
        let hole = self.piece.offset.saturating_sub(self.place);
        if hole > 0 {
            let len = hole.min(buf.len() as u64) as usize;
            buf[..len].fill(0);
            self.place += len as u64;
            return Ok(len);
        }
        let len = self.piece.len.min(buf.len() as u64) as usize;
        if len == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut buf[..len])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                self.malformed("the archive is cut off"),
            ));
        }
        let count = read as u64;
        self.at += count;
        self.left -= count;
        self.place += count;
        self.piece = Piece { offset: self.piece.offset + count, len: self.piece.len - count };
        Ok(read)
    }
}

/// Bytes from the end of a content to that of its block.
fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// A decimal number.
fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Whole seconds of a time, which may have a fraction and be before 1970.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let before = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    Some(if before { seconds.checked_sub(1)? } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let times = ["5", "5.9", "-5", "-5.0", "-5.1", "x", ""].map(|text| seconds(text.as_bytes()));
        assert_eq!(times, [Some(5), Some(5), Some(-5), Some(-5), Some(-6), None, None]);
    }

    fn header(kind: u8, name: &str, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(kind));
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    /// An entry with its content, padded.
    fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes = header(kind, name, content.len() as u64);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    fn all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
        let mut members = Members::new(bytes);
        let mut found = Vec::new();
        while let Some(member) = members.next()? {
            let mut content = Vec::new();
            members.read_to_end(&mut content)?;
            found.push((member, content));
        }
        Ok(found)
    }

    #[test]
    fn long_names_and_extended_headers_count_for_the_next_member() {
        let long = "d/".repeat(200) + "f";
        let record = b"30 mtime=-1.5\n";
        assert!(all(&entry(b'x', "x", record)).is_err());
        let bytes = [
            entry(b'L', "././@LongLink", long.as_bytes()),
            entry(b'0', "short", b"hello"),
            entry(b'x', "x", b"14 mtime=-1.5\n20 path=other\xff\nname\n18 uid=4000000000\n"),
            entry(b'0', "short", b""),
            entry(b'0', "last", b"x"),
        ]
        .concat();
        let found = all(&bytes).unwrap();
        assert_eq!((found[0].0.path.as_slice(), found[0].1.as_slice()), (long.as_bytes(), &b"hello"[..]));
        let second = &found[1].0;
        assert_eq!(
            (second.path.as_slice(), second.mtime, second.uid),
            (&b"other\xff\nname"[..], -2, 4_000_000_000)
        );
        assert_eq!((found[2].0.path.as_slice(), found[2].0.mtime), (&b"last"[..], 0));
    }

    #[test]
    fn pieces_of_sparse_files_are_in_their_places() {
        let map = b"2\n2\n3\n10\n1\n";
        let mut content = map.to_vec();
        content.resize(BLOCK, 0);
        content.extend(b"abcd");
        let keys = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n26 GNU.sparse.realsize=12\n24 GNU.sparse.name=real\n";
        let bytes =
            [entry(b'x', "x", keys), entry(b'0', "stand-in", &content), entry(b'0', "b", b"b")].concat();
        let found = all(&bytes).unwrap();
        assert_eq!(found[0].0.path, b"real");
        assert_eq!(
            (&found[0].0.kind, found[0].1.as_slice()),
            (&Kind::File(12), &b"\0\0abc\0\0\0\0\0d\0"[..])
        );
        assert_eq!(found[1].1, b"b");
    }

    #[test]
    fn damage_is_an_error() {
        let good = entry(b'0', "file", &[7; 1000]);
        for len in [1, 511, 512, 600, 1511] {
            assert!(all(&good[..len]).is_err(), "{len}");
        }
        assert_eq!(all(&good).unwrap().len(), 1);
        let mut bad = good.clone();
        bad[0] ^= 1;
        assert!(all(&bad).unwrap_err().to_string().contains("sum"));
        assert!(all(&header(b'L', "x", 1 << 40)).unwrap_err().to_string().contains("the most"));
        assert!(all(&entry(b'V', "x", b"")).unwrap_err().to_string().contains("not known"));
    }
}
