use super::*;

const NOW: Timestamp = Timestamp { secs: 100, nanos: 5 };

fn maker(mode: u32) -> Maker {
    Maker { mode, uid: 1000, gid: 100, now: NOW }
}

fn file(fs: &mut Filesystem, dir: Ino, name: &str) -> Ino {
    fs.create(dir, name.as_bytes(), maker(S_IFREG | 0o644)).unwrap()
}

fn dir(fs: &mut Filesystem, parent: Ino, name: &str) -> Ino {
    fs.create(parent, name.as_bytes(), maker(S_IFDIR | 0o755)).unwrap()
}

fn names(fs: &Filesystem, dir: Ino) -> Vec<String> {
    fs.directory(dir).unwrap().entries().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect()
}

fn fails<T: std::fmt::Debug>(result: FsResult<T>) -> Errno {
    match result {
        Err(FsError::Errno(errno)) => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_keep_their_order_and_links_are_counted() {
    let mut fs = Filesystem::default();
    let d = dir(&mut fs, ROOT, "zeta");
    let f = file(&mut fs, ROOT, "alpha");
    fs.link(d, b"hard", f, NOW).unwrap();
    assert_eq!(names(&fs, ROOT), ["zeta", "alpha"]);
    assert_eq!((fs.inode(ROOT).unwrap().nlink, fs.inode(f).unwrap().nlink), (3, 2));
    fs.unlink(ROOT, b"alpha", Unlink::File, NOW).unwrap();
    assert_eq!(fs.inode(f).unwrap().nlink, 1);
    fs.unlink(d, b"hard", Unlink::File, NOW).unwrap();
    assert_eq!(fails(fs.inode(f)), Errno::ESTALE);
    fs.unlink(ROOT, b"zeta", Unlink::Directory, NOW).unwrap();
    assert_eq!(fs.inode(ROOT).unwrap().nlink, 2);
    assert_eq!(fs.count(), 1);
}

#[test]
fn an_unlinked_file_lives_while_it_is_held() {
    let mut fs = Filesystem::default();
    let empty = fs.memory();
    let f = file(&mut fs, ROOT, "f");
    fs.acquire(f).unwrap();
    fs.unlink(ROOT, b"f", Unlink::File, NOW).unwrap();
    fs.write(&mut NoBlobs, f, 3, b"abc", NOW).unwrap();
    assert_eq!(fs.read_all(&mut NoBlobs, f), Ok(b"\0\0\0abc".to_vec()));
    assert_eq!(fails(fs.link(ROOT, b"again", f, NOW)), Errno::ENOENT);
    let path = fs.inode(f).unwrap().qid_path;
    fs.release(f);
    assert_eq!(fails(fs.inode(f)), Errno::ESTALE);
    assert_eq!(fs.memory(), empty);
    let g = file(&mut fs, ROOT, "g");
    assert!(fs.inode(g).unwrap().qid_path > path);
}

#[test]
fn rename_as_posix_says() {
    let mut fs = Filesystem::default();
    let (a, b) = (dir(&mut fs, ROOT, "a"), dir(&mut fs, ROOT, "b"));
    let f = file(&mut fs, a, "f");
    let g = file(&mut fs, b, "g");
    assert_eq!(fails(fs.rename(ROOT, b"a", a, b"x", NOW)), Errno::EINVAL);
    assert_eq!(fails(fs.rename(a, b"f", ROOT, b"b", NOW)), Errno::EISDIR);
    assert_eq!(fails(fs.rename(ROOT, b"a", b, b"g", NOW)), Errno::ENOTDIR);
    assert_eq!(fails(fs.rename(ROOT, b"a", ROOT, b"b", NOW)), Errno::ENOTEMPTY);
    assert_eq!(fails(fs.rename(ROOT, b"no", ROOT, b"b", NOW)), Errno::ENOENT);
    assert_eq!(fails(fs.rename(ROOT, b"a", ROOT, b"..", NOW)), Errno::EINVAL);
    fs.rename(a, b"f", b, b"g", NOW).unwrap();
    assert_eq!((fs.lookup(b, b"g"), fails(fs.inode(g))), (Ok(f), Errno::ESTALE));
    fs.link(a, b"same", f, NOW).unwrap();
    fs.rename(a, b"same", b, b"g", NOW).unwrap();
    assert_eq!(fs.lookup(a, b"same"), Ok(f), "two names of one inode stay as they are");
    fs.unlink(a, b"same", Unlink::File, NOW).unwrap();
    fs.rename(ROOT, b"b", a, b"b", NOW).unwrap();
    assert_eq!(fs.lookup(b, b".."), Ok(a));
    assert_eq!((fs.inode(ROOT).unwrap().nlink, fs.inode(a).unwrap().nlink), (3, 3));
    let c = dir(&mut fs, ROOT, "c");
    fs.rename(a, b"b", ROOT, b"c", NOW).unwrap();
    assert_eq!((fs.lookup(ROOT, b"c"), fails(fs.inode(c))), (Ok(b), Errno::ESTALE));
    assert_eq!((fs.inode(ROOT).unwrap().nlink, fs.inode(a).unwrap().nlink), (4, 2));
}

#[test]
fn removed_directories_take_nothing_in() {
    let mut fs = Filesystem::default();
    let d = dir(&mut fs, ROOT, "d");
    let f = file(&mut fs, ROOT, "f");
    fs.acquire(d).unwrap();
    assert_eq!(fails(fs.unlink(ROOT, b"d", Unlink::File, NOW)), Errno::EISDIR);
    assert_eq!(fails(fs.unlink(ROOT, b"f", Unlink::Directory, NOW)), Errno::ENOTDIR);
    fs.unlink(ROOT, b"d", Unlink::Any, NOW).unwrap();
    assert_eq!(fails(fs.create(d, b"x", maker(S_IFREG))), Errno::ENOENT);
    assert_eq!(fails(fs.rename(ROOT, b"f", d, b"x", NOW)), Errno::ENOENT);
    assert_eq!(fails(fs.link(d, b"x", f, NOW)), Errno::ENOENT);
    assert_eq!(fails(fs.link(ROOT, b"x", ROOT, NOW)), Errno::EPERM);
}

#[test]
fn listing_goes_on_where_it_was() {
    let mut fs = Filesystem::default();
    for i in 0..100 {
        file(&mut fs, ROOT, &format!("f{i}"));
    }
    let (cookie, _) = fs.directory(ROOT).unwrap().after(0).nth(9).unwrap();
    for i in 0..10 {
        fs.unlink(ROOT, format!("f{i}").as_bytes(), Unlink::File, NOW).unwrap();
    }
    file(&mut fs, ROOT, "f0");
    let rest: Vec<_> = fs.directory(ROOT).unwrap().after(cookie).map(|(_, e)| e.name.clone()).collect();
    assert_eq!((rest.len(), &*rest[0], &*rest[90]), (91, b"f10".as_slice(), b"f0".as_slice()));
}

#[test]
fn memory_is_bounded() {
    let mut fs = Filesystem { memory_limit: 1 << 20, ..Filesystem::default() };
    let f = file(&mut fs, ROOT, "f");
    assert_eq!(fails(fs.write(&mut NoBlobs, f, 1 << 40, &[1; 2 << 20], NOW)), Errno::ENOSPC);
    assert_eq!(fs.inode(f).unwrap().size, 0);
    assert_eq!(fails(fs.resize(f, u64::MAX, NOW)), Errno::EFBIG);
    fs.resize(f, i64::MAX as u64, NOW).unwrap();
    let before = fs.memory();
    fs.write(&mut NoBlobs, f, i64::MAX as u64 - 4, b"tail", NOW).unwrap();
    assert!(fs.memory() > before);
    fs.resize(f, 0, NOW).unwrap();
    assert_eq!(fs.memory(), before);
    let error = (0..).find_map(|i| fs.create(ROOT, format!("{i}").as_bytes(), maker(S_IFREG)).err());
    assert_eq!(error, Some(Errno::ENOSPC.into()));
    let wanted = Lock { kind: LockKind::Write, start: 0, length: 1, proc_id: 1, client_id: [0; 8000].into() };
    assert_eq!(fails(fs.set_lock(f, wanted)), Errno::ENOLCK);
}

#[test]
fn impossible_names() {
    let mut fs = Filesystem::default();
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        fails(fs.create(ROOT, name, maker(S_IFREG)));
    }
    fs.create(ROOT, &[b'x'; 255], maker(S_IFREG)).unwrap();
    fs.create(ROOT, b"\xff\xfe", maker(S_IFREG)).unwrap();
    assert_eq!(fails(fs.create(ROOT, b"typeless", maker(0))), Errno::EINVAL);
}

#[test]
fn a_saved_table_comes_back_and_a_broken_one_does_not() {
    let mut fs = Filesystem::default();
    let d = dir(&mut fs, ROOT, "d");
    let f = file(&mut fs, d, "f");
    file(&mut fs, d, "gone");
    fs.unlink(d, b"gone", Unlink::File, NOW).unwrap();
    fs.write(&mut NoBlobs, f, 0, b"text", NOW).unwrap();
    let table = fs.inodes().to_vec();
    let back = Filesystem::from_inodes(table.clone(), fs.last_qid).unwrap();
    assert_eq!((back.inodes(), back.memory(), back.count()), (fs.inodes(), fs.memory(), fs.count()));

    let forgetful = Filesystem::from_inodes(table.clone(), 0).unwrap();
    assert_eq!(forgetful.last_qid, fs.inode(f).unwrap().qid_path);

    let broken = |change: &dyn Fn(&mut Vec<Option<Inode>>)| {
        let mut table = table.clone();
        change(&mut table);
        Filesystem::from_inodes(table, 0).unwrap_err()
    };
    assert_eq!(broken(&|t| t.clear()), TreeError::NoRoot);
    assert_eq!(broken(&|t| t[f as usize] = None), TreeError::Dangling { dir: d, ino: f });
    let name = |table: &mut Vec<Option<Inode>>, dir: Ino, name: &[u8], ino| {
        let Some(Inode { content: Content::Directory(directory), .. }) = &mut table[dir as usize] else {
            panic!("{dir} is a directory")
        };
        directory.insert(name, ino);
    };
    assert_eq!(broken(&|t| name(t, d, b"up", d)), TreeError::Misplaced { dir: d, ino: d });
    assert_eq!(broken(&|t| name(t, d, b"up", ROOT)), TreeError::Misplaced { dir: d, ino: ROOT });
    assert_eq!(broken(&|t| name(t, d, b"a/b", f)), TreeError::Name { dir: d });
}

#[test]
fn locks_go_with_the_client() {
    let mut fs = Filesystem::default();
    let f = file(&mut fs, ROOT, "f");
    let before = fs.memory();
    let wanted =
        Lock { kind: LockKind::Write, start: 0, length: 0, proc_id: 1, client_id: b"one"[..].into() };
    fs.set_lock(f, wanted.clone()).unwrap();
    let other = Lock { client_id: b"two"[..].into(), ..wanted };
    assert!(fs.lock_conflict(f, &other).unwrap().is_some());
    fs.clear_locks();
    assert!(fs.lock_conflict(f, &other).unwrap().is_none());
    assert_eq!(fs.memory(), before);
}
