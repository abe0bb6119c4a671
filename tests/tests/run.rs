//! `env86 run` with the demo image: one boot, which is saved, and then commands in machines that resume it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use super::tasks;
use env86::guest::{Guest, GuestError};
use env86::{Image, Machine};
use env86_tests::{Result, bound_to_us, image, program};

/// A copy of the demo image that a state can be saved to.
fn own_image() -> Result<PathBuf> {
    let (from, to) = (image()?, Path::new(env!("CARGO_TARGET_TMPDIR")).join("run"));
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    fs::create_dir_all(to.join("fs"))?;
    for name in ["image.json", "fs.json"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    for blob in fs::read_dir(from.join("fs"))? {
        let blob = blob?;
        fs::hard_link(blob.path(), to.join("fs").join(blob.file_name()))
            .or_else(|_| fs::copy(blob.path(), to.join("fs").join(blob.file_name())).map(drop))?;
    }
    Ok(to)
}

/// A run of a command with this input.
fn run(flags: &[&str], image: &Path, command: &[&str], input: &[u8]) -> Result<Output> {
    let mut child = bound_to_us(program()?)
        .arg("run")
        .args(flags)
        .arg(image)
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut stdin, input) = (child.stdin.take(), input.to_vec());
    let writer = thread::spawn(move || {
        // A command that does not read it is no failure.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(&input));
    });
    let output = child.wait_with_output()?;
    writer.join().expect("it only writes");
    Ok(output)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn commands_run_as_if_they_were_local() -> Result<()> {
    let image = own_image()?;
    let sh = |flags: &[&str], script: &str, input: &[u8]| run(flags, &image, &["sh", "-c", script], input);

    // Without a state: it boots, says so, and is saved before the command starts.
    let cold = sh(&["--save"], "echo out; echo err >&2; exit 3", b"")?;
    let said = text(&cold.stderr);
    assert_eq!((cold.status.code(), text(&cold.stdout).as_str()), (Some(3), "out\n"), "{said}");
    assert!(said.contains("has to boot first") && said.ends_with("err\n"), "{said}");
    assert!(image.join("initial.state").exists());

    // From then on nothing but the command says anything.
    let warm = sh(&[], "echo out; echo err >&2; exit 4", b"")?;
    let streams = (text(&warm.stdout), text(&warm.stderr));
    assert_eq!((warm.status.code(), streams), (Some(4), ("out\n".into(), "err\n".into())));

    // Statuses as a shell and Docker give them.
    let status = |output: Output| (output.status.code(), text(&output.stderr));
    assert_eq!(status(sh(&[], "kill -TERM $$", b"")?).0, Some(128 + 15));
    let (code, said) = status(run(&[], &image, &["no-such-command"], b"")?);
    assert!(code == Some(127) && said.contains("no-such-command"), "{code:?} {said}");
    let (code, said) = status(run(&[], &image, &["/etc/passwd"], b"")?);
    assert!(code == Some(126) && said.contains("permission denied"), "{code:?} {said}");
    let (code, said) = status(run(&["-w", "/none"], &image, &["true"], b"")?);
    assert!(code == Some(125) && said.contains("/none"), "{code:?} {said}");
    assert_eq!(status(sh(&["--timeout", "1s"], "sleep 1000", b"")?).0, Some(124));

    // Environment, directory, user, input and its end.
    let flags = ["-e", "A=a b", "-w", "/tmp", "-u", "nobody"];
    let output = sh(&flags, "echo \"$A\" $(pwd) $(id -un); cat", b"input\n")?;
    assert_eq!(text(&output.stdout), "a b /tmp nobody\ninput\n", "{}", text(&output.stderr));
    let output = run(&["-i=false"], &image, &["wc", "-c"], b"not for it")?;
    assert_eq!(text(&output.stdout).trim(), "0");

    // A terminal has a size, and its newlines.
    let output = sh(&["-t"], "stty size; tty", b"")?;
    assert_eq!(text(&output.stdout), "24 80\r\n/dev/pts/0\r\n", "{}", text(&output.stderr));

    // A megabyte there and back.
    let data: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let output = run(&[], &image, &["cat"], &data)?;
    assert!(output.stdout == data, "{} bytes: {}", output.stdout.len(), text(&output.stderr));

    // The clock is right, and machines of one state differ.
    let ask = || sh(&[], "date +%s; head -c 16 /dev/urandom | od -x", b"");
    let (first, second) = (text(&ask()?.stdout), text(&ask()?.stdout));
    let seconds: u64 = first.lines().next().and_then(|line| line.parse().ok()).expect("a time");
    let now = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970").as_secs();
    assert!((now - 60..=now).contains(&seconds), "{seconds} at {now}");
    assert_ne!(first.lines().nth(1), second.lines().nth(1));

    a_network(&image)?;
    folders_of_the_host(&image)?;
    folders_that_stay(&image)?;
    #[cfg(unix)]
    machines_that_stay(&image)?;
    through_the_library(&image)
}

/// A network, for a machine that was saved without one: a port of this host's, and one of the guest's.
fn a_network(image: &Path) -> Result<()> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = server.local_addr()?.port().to_string();
    let script =
        format!("nc host.env86.internal {ours} < /dev/null && echo from the guest | nc -l -p 7 > /dev/null");
    let mut machine = bound_to_us(program()?)
        .args(["run", "-n", "--allow-host", &ours, "-p", "0:7"])
        .arg(image)
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It says which port it has found for the guest's.
    let mut errors = BufReader::new(machine.stderr.take().expect("it is a pipe"));
    let mut line = String::new();
    errors.read_line(&mut line)?;
    let port = line.split(' ').nth(1).and_then(|word| word.parse::<SocketAddr>().ok());
    let port = port.unwrap_or_else(|| panic!("{line}"));
    let asking = thread::spawn(move || -> std::io::Result<String> {
        server.accept()?.0.write_all(b"from the host\n")?;
        // Until the guest listens, its port is closed, and there is no port when the machine has ended.
        let mut said = String::new();
        while said.is_empty() {
            let _ = TcpStream::connect(port)?.read_to_string(&mut said);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(said)
    });
    let mut said = String::new();
    errors.read_to_string(&mut said)?;
    let output = machine.wait_with_output()?;
    assert_eq!((text(&output.stdout), said), ("from the host\n".into(), String::new()));
    assert_eq!(asking.join().expect("it only asks")?, "from the guest\n");

    let output = run(&["--cold", "-n", "--net-device", "none"], image, &["true"], b"")?;
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(125) && said.contains("choose one with --net-device"), "{said}");
    Ok(())
}

/// A mounted folder: what the guest makes is here at once, and read-only is read-only.
#[cfg(unix)]
fn folders_of_the_host(image: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-folder");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("from-host"), "host\n")?;
    let mounted = |end: &str| format!("{}:/mnt/with a blank{end}", folder.display());
    let script = "cat from-host; echo guest > from-guest; mkdir d; cp /bin/true d/; chown 1000 d/true; d/true && \
        ln -s /etc/hostname d/link && cat d/link; mv d e; cat ../../etc/hostname";
    let flags = ["-m", &mounted(""), "-m", "/:/mnt/other:ro", "-w", "/mnt/with a blank"];
    let output = run(&flags, image, &["sh", "-c", script], b"")?;
    assert_eq!(text(&output.stdout), "host\nenv86\nenv86\n", "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(folder.join("from-guest"))?, "guest\n");
    let (made, ours) = (fs::metadata(folder.join("e/true"))?, fs::metadata(&folder)?);
    assert!(made.len() > 10_000 && made.uid() == ours.uid() && made.mode() & 0o111 != 0, "{made:?}");
    let script = "cat from-guest; rm from-guest || echo x > e/new || touch from-host || mkdir f";
    let flags = ["-m", &mounted(":ro"), "-w", "/mnt/with a blank"];
    let output = run(&flags, image, &["sh", "-c", script], b"")?;
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.matches("Read-only file system").count() == 4, "{said}");
    assert_eq!(text(&output.stdout), "guest\n");
    assert_eq!(fs::read_dir(&folder)?.count(), 3);
    Ok(())
}

/// What comes of such folders when a machine is saved.
#[cfg(unix)]
fn folders_that_stay(image: &Path) -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-folder");
    // Errors of the library are of many kinds.
    Ok(folders_of_a_library(image, &folder).map_err(|error| std::io::Error::other(error.to_string()))?)
}

/// Folders in a machine that is saved while they are mounted, by either way, and what becomes of them.
#[cfg(unix)]
fn folders_of_a_library(image: &Path, folder: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    const DEVICE: &str = "org.env86.shares ";
    let state = folder.with_extension("state");
    let image = Image::open(image)?;
    let mut sources = Vec::new();
    {
        let machine = Machine::builder().image(&image).start()?;
        let guest = machine.guest()?;
        guest.mount(folder, "/mnt/a", false)?;
        // Where the device cannot be mounted, the folder comes by the line.
        for script in
            ["umount -l /mnt/a", "umount -l /run/env86/shares", "rm -r /run/env86", "touch /run/env86"]
        {
            assert!(guest.command("sh").args(["-c", script]).status()?.success(), "{script}");
        }
        guest.mount(folder, "/mnt/b", false)?;
        sources.push(String::from_utf8(guest.read("/proc/mounts")?)?);
        assert!(guest.command("rm").arg("/run/env86").status()?.success());
        guest.mount(folder, "/mnt/a", false)?;
        sources.push(String::from_utf8(guest.read("/proc/mounts")?)?);
        guest.write("/mnt/a/saved", b"before")?;
        assert_eq!(guest.read("/mnt/b/saved")?, b"before");
        fs::write(folder.join("saved"), "and the host, too")?;
        assert_eq!(guest.read("/mnt/a/saved")?, b"and the host, too");
        machine.save(&state)?;
        machine.stop()?;
    }
    assert!(!sources[0].contains(DEVICE) && sources[0].contains("127.0.0.1 /mnt/b 9p "), "{}", sources[0]);
    assert!(sources[1].contains(&format!("{DEVICE}/mnt/a 9p ")), "{}", sources[1]);
    let machine = Machine::builder().image(&image).state(&state).start()?;
    let guest = machine.guest()?;
    let mounts = String::from_utf8(guest.read("/proc/mounts")?)?;
    assert!(!mounts.contains(DEVICE), "{mounts}");
    guest.mount(folder, "/mnt/a", false)?;
    assert_eq!(guest.read("/mnt/a/saved")?, b"and the host, too");
    let mounts = String::from_utf8(guest.read("/proc/mounts")?)?;
    assert!(mounts.contains(&format!("{DEVICE}/mnt/a 9p ")), "{mounts}");
    machine.stop()?;
    fs::remove_file(state)?;
    Ok(())
}

#[cfg(not(unix))]
fn folders_of_the_host(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn folders_that_stay(_: &Path) -> Result<()> {
    Ok(())
}

/// A machine in the background, from its start until nothing is left of it.
#[cfg(unix)]
fn machines_that_stay(image: &Path) -> Result<()> {
    /// Ends the machine, whatever becomes of the test.
    struct Ends<F: Fn()>(F);
    impl<F: Fn()> Drop for Ends<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    // The path of a socket has to be short.
    let runtime = std::env::temp_dir().join(format!("env86-names-{}", std::process::id()));
    fs::create_dir_all(&runtime)?;
    let env86 = |words: &[&str], input: &[u8]| -> Result<Output> {
        let mut child = Command::new(program()?)
            .args(words)
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (mut stdin, input) = (child.stdin.take(), input.to_vec());
        // A command that does not read it is no failure.
        let writer = thread::spawn(move || _ = stdin.as_mut().map(|stdin| stdin.write_all(&input)));
        let output = child.wait_with_output()?;
        writer.join().expect("it only writes");
        Ok(output)
    };
    let good = |words: &[&str], input: &[u8]| -> Result<String> {
        let output = env86(words, input)?;
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    };
    let bad = |words: &[&str], says: &str| -> Result<()> {
        let output = env86(words, b"")?;
        assert!(!output.status.success() && text(&output.stderr).contains(says), "{words:?}: {output:?}");
        Ok(())
    };
    let path = image.to_str().expect("it is UTF-8");
    let _ends = Ends(|| _ = env86(&["rm", "-f", "work"], b""));
    assert_eq!(good(&["start", "--name", "work", path], b"")?, "work\n");
    bad(&["start", "--name", "work", path], "runs already")?;
    bad(&["start", "--ttyS0", path], "has no terminal")?;
    let list = good(&["ps", "--json"], b"")?;
    assert!(
        list.contains("\"running\"") && list.contains(path) && list.matches("\"name\"").count() == 1,
        "{list}"
    );

    let script = "read line; echo \"$line $A\"; echo err >&2; echo at COM1 > /dev/ttyS0; cat | wc -c; exit 7";
    let data = [&b"hello\n"[..], &vec![b'x'; 1 << 20]].concat();
    let output = env86(&["exec", "-e", "A=b", "work", "sh", "-c", script], &data)?;
    let streams = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), streams), (Some(7), ("hello b\n1048576\n".into(), "err\n".into())));
    let output = env86(&["exec", "work", "no-such-command"], b"")?;
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
    let output = env86(&["exec", "--timeout", "1s", "work", "sleep", "1000"], b"")?;
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    assert_eq!(good(&["exec", "-t", "work", "stty", "size"], b"")?, "24 80\r\n");

    let (there, back) = (runtime.join("there"), runtime.join("back"));
    fs::write(&there, &data)?;
    let (there, back) = (there.to_str().expect("UTF-8"), back.to_str().expect("UTF-8"));
    good(&["cp", there, "work:/tmp"], b"")?;
    good(&["cp", "work:/tmp/there", back], b"")?;
    assert!(fs::read(back)? == data);
    bad(&["cp", "work:/tmp/none", back], "/tmp/none")?;
    good(&["pause", "work"], b"")?;
    assert!(good(&["ps"], b"")?.contains(" paused "));
    bad(&["exec", "work", "true"], "env86 resume")?;
    good(&["resume", "work"], b"")?;
    good(&["exec", "work", "true"], b"")?;
    let state = runtime.join("work.state.zst");
    good(&["save", "work", state.to_str().expect("UTF-8")], b"")?;
    assert!(fs::metadata(state)?.len() > 1 << 20);

    bad(&["rm", "work"], "env86 stop work")?;
    good(&["stop", "work"], b"")?;
    assert!(good(&["ps"], b"")?.contains(" gone "));
    assert!(good(&["logs", "work"], b"")?.contains("at COM1"));
    bad(&["exec", "work", "true"], "has ended")?;
    good(&["rm", "work"], b"")?;
    bad(&["stop", "work"], "no machine called")?;
    assert_eq!(fs::read_dir(runtime.join("env86"))?.count(), 0);
    fs::remove_dir_all(&runtime)?;
    Ok(())
}

/// What any service can do: ours, and that of the Go env86.
fn files_and_connections(guest: &Guest) -> std::result::Result<(), GuestError> {
    let data: Vec<u8> = (0..300_000u32).map(|n| (n >> 5) as u8).collect();
    guest.upload(&mut &data[..], "/tmp/data", 0o750, Some(1_000_000_000))?;
    let mut back = Vec::new();
    let info = guest.download("/tmp/data", &mut back)?;
    assert_eq!((info.mode, info.mtime, info.size, back == data), (0o750, 1_000_000_000, 300_000, true));
    for error in [
        guest.download("/tmp/none", &mut Vec::new()).unwrap_err(),
        guest.download("/tmp", &mut Vec::new()).unwrap_err(),
        guest.upload(&mut &data[..], "/tmp/none/data", 0o644, None).unwrap_err(),
        guest.dial("127.0.0.1:1").unwrap_err(),
    ] {
        assert!(matches!(&error, GuestError::Refused(why) if !why.is_empty()), "{error}");
    }
    // A server of the guest's own that gives back what it gets, and says when it listens.
    let server = guest.command("sh").args(["-c", "exec nc -l -p 7777 -e cat 2>&1"]).spawn()?;
    let mut connection = loop {
        match guest.dial("127.0.0.1:7777") {
            Ok(connection) => break connection,
            Err(error) if server.try_wait()?.is_some() => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut other = vec![0; 100_000];
    connection.write_all(&data[..100_000])?;
    connection.read_exact(&mut other)?;
    assert!(other == data[..100_000]);
    // The Go service does not pass on that one side has ended.
    if guest.version() != "dev" {
        connection.shutdown_write();
        assert_eq!(connection.read_to_end(&mut other)?, 0);
    }
    Ok(())
}

/// The Go service of an image that was made with the Go env86. ENV86_GO_IMAGE names one: `make go-guest` makes it.
#[test]
#[ignore = "needs an image with the service of the Go env86, which is not built here: make go-guest GO_GUEST86=FILE"]
fn the_go_service_serves_our_host() -> Result<()> {
    let image = PathBuf::from(std::env::var_os("ENV86_GO_IMAGE").expect("ENV86_GO_IMAGE names no image"));
    let by_library = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        let machine = Machine::builder().image(&Image::open(&image)?).start()?;
        let guest = machine.guest()?;
        assert_eq!(guest.version(), "dev");
        files_and_connections(&guest)?;
        machine.stop()?;
        Ok(())
    };
    by_library().map_err(|error| std::io::Error::other(error.to_string()))?;
    let output = run(&["--save"], &image, &["sh", "-c", "cat; echo e >&2; exit 7"], b"input")?;
    assert_eq!((text(&output.stdout), output.status.code()), ("input".into(), Some(7)));
    let output = run(&["-t"], &image, &["sh", "-c", "tty; stty size"], b"")?;
    assert!(text(&output.stdout).starts_with("/dev/pts/"), "{}", text(&output.stdout));
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n >> 3) as u8).collect();
    assert!(run(&[], &image, &["cat"], &data)?.stdout == data);
    folders_of_the_host(&image)
}

/// What programs have of it.
fn through_the_library(image: &Path) -> Result<()> {
    let failed = |error: &dyn std::error::Error| std::io::Error::other(error.to_string());
    let image = Image::open(image).map_err(|e| failed(&e))?;
    let machine = Machine::builder().image(&image).network(env86::net::Config::default()).start();
    let machine = machine.map_err(|e| failed(&e))?;
    let guest = machine.guest().map_err(|e| failed(&e))?;
    let work = || -> std::result::Result<(), env86::guest::GuestError> {
        // A guest that has not loaded the driver of its network card.
        let script = "modprobe -r ne2k-pci; : > /etc/resolv.conf; ls /sys/class/net";
        let output = guest.command("sh").args(["-c", script]).output()?;
        assert_eq!(text(&output.stdout), "lo\n", "{}", text(&output.stderr));
        guest.reset_network()?;
        assert!(text(&guest.read("/etc/resolv.conf")?).contains("nameserver "));
        // One whose card is gone.
        let script = "for card in /sys/bus/pci/devices/*; do read class < $card/class; \
            case $class in 0x02*) echo 1 > $card/remove; esac; done";
        assert!(guest.command("sh").args(["-c", script]).status()?.success());
        let failed = guest.reset_network().unwrap_err().to_string();
        assert!(failed.contains("there is no network card"), "{failed}");
        guest.create_dir_all("/tmp/a/b")?;
        guest.write("/tmp/a/b/file", b"content")?;
        assert_eq!(guest.read("/tmp/a/b/file")?, b"content");
        assert_eq!(guest.read_dir("/tmp/a/b")?[0].name, "file");
        guest.rename("/tmp/a/b/file", "/tmp/a/other")?;
        assert_eq!(guest.metadata("/tmp/a/other")?.size, 7);
        files_and_connections(&guest)?;
        // Several at once, each with its own streams.
        let mut children: Vec<_> = (0..8)
            .map(|n| guest.command("sh").arg("-c").arg(format!("read x; echo $x {n}; exit {n}")).spawn())
            .collect::<std::result::Result<_, _>>()?;
        for child in &mut children {
            child.stdin.take().expect("it has one").write_all(b"line\n")?;
        }
        for (n, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output()?;
            assert_eq!(
                (output.status.code(), output.stdout),
                (Some(n as i32), format!("line {n}\n").into_bytes())
            );
        }
        // Programs of the guest call the host.
        let mut listener = guest.listen("127.0.0.1:0")?;
        let port = listener.local_address().rsplit(':').next().expect("it has a port").to_owned();
        let script = format!("for n in 1 2 3; do echo call $n | nc 127.0.0.1 {port}; done");
        let caller = guest.command("sh").args(["-c", &script]).spawn()?;
        for n in 1..=3 {
            let (mut connection, peer) = listener.accept()?;
            let mut asked = vec![0; 7];
            connection.read_exact(&mut asked)?;
            assert!(
                text(&asked) == format!("call {n}\n") && peer.starts_with("127.0.0.1:"),
                "{peer}: {asked:?}"
            );
            connection.write_all(b"answer\n")?;
        }
        assert_eq!(text(&caller.wait_with_output()?.stdout), "answer\n".repeat(3));
        assert!(guest.listen(format!("127.0.0.1:{port}")).is_err());
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(tasks::programs(&guest))?;
        let mut child = guest.command("sleep").arg("1000").spawn()?;
        child.kill()?;
        assert_eq!(child.wait()?.signal(), Some(9));
        guest.remove_all("/tmp/a")?;
        assert!(guest.metadata("/tmp/a").is_err());
        Ok(())
    };
    work().map_err(|e| failed(&e))?;
    machine.stop().map_err(|e| failed(&e))?;
    Ok(())
}

#[test]
fn an_image_without_the_service_is_told_at_once() -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-service");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("image.json"), "{}")?;
    let output: Output = Command::new(program()?).arg("run").arg(&folder).arg("true").output()?;
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(125) && said.contains("guest86") && said.lines().count() == 1,
        "{said}"
    );
    let output = Command::new(program()?).args(["run", "--no-such-flag", "image", "true"]).output()?;
    assert_eq!(output.status.code(), Some(125));
    Ok(())
}
