//! Dockerfiles upon Alpine, as the Go program's users have them: OpenRC, a getty at the screen and one at the serial line;
//! and a whole machine with its own kernel. They are built here without Docker, booted, and reach their prompts.
//!
//! Alpine's registry and packages cannot be had by a test. The commands of the Dockerfiles are those that do it upon Alpine; these
//! parts stand in for Alpine's:
//!
//! * the container image, an OCI layout on disk: Debian's static busybox in Alpine's places, Debian's C library for musl, and the files
//!   of `tests/alpine/base`, among them an `inittab` in Alpine's form;
//! * `apk`, a script that gets archives from the repository, a server on the loopback; `chpasswd`, which Debian's busybox has not;
//! * packages that are made here: `openrc` is Debian's 0.45, with services of `tests/alpine/openrc` under Alpine's names; `agetty` is
//!   Debian's; `linux-lts` has Debian's kernel and the demo image's choice of its modules; `mkinitfs` and `alpine-conf` are scripts of `tests/alpine`,
//!   and the initial RAM disk's program is the demo image's; `alpine-base` and the firmware are empty.

#![cfg(unix)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use env86_tests::{
    Failure, Result, bound_to_us, image, image_root, net_image_root, program, serve_folder, workspace,
};
use serde_json::Value;

use crate::containers::{layout, scratch};

/// What Alpine's busybox is called, as far as something here calls it.
const APPLETS: &str = "awk basename cat chmod chown cp cpio cut date dirname dmesg env expr find getty grep head hostname hwclock id \
    ifconfig ifdown ifup init insmod ip kill ln login ls lsmod md5sum mdev mkdir mkpasswd mktemp modprobe mount mv printf ps pwd \
    readlink reboot rm rmdir rmmod route run-parts sed setsid sh sleep sort stat stty switch_root sync sysctl tail tar tee test \
    touch tr true tty udhcpc umount uname uniq wc wget which xargs";
/// Where Debian has libraries for i386.
const LIBRARIES: &str = "lib/i386-linux-gnu";

/// The container image, the repository, and what is built of them, in a folder.
struct Alpine {
    folder: PathBuf,
    port: u16,
}

/// Copies a file, or a folder with all below it, to a place below a root. Links at `from` are followed.
fn put(from: &Path, root: &Path, to: &str) -> Result<()> {
    let to = root.join(to);
    fs::create_dir_all(to.parent().unwrap_or(root))?;
    let from = if from.is_dir() { from.join(".") } else { from.into() };
    ran(Command::new("cp").args(["-a", "-H"]).arg(from).arg(to))
}

fn ran(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::from(std::io::Error::other(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )))),
    }
}

impl Alpine {
    fn new(name: &str) -> Result<Self> {
        let folder = scratch(name)?;
        for below in ["base", "context", "engines", "mirror/edge"] {
            fs::create_dir_all(folder.join(below))?;
        }
        // Neither is at work.
        for engine in ["docker", "podman"] {
            symlink("/bin/false", folder.join("engines").join(engine))?;
        }
        fs::write(folder.join("mirror/hello"), "from the mirror\n")?;
        let port = serve_folder(folder.join("mirror"))?;
        let alpine = Self { folder, port };
        alpine.container()?;
        Ok(alpine)
    }

    fn mirror(&self) -> String {
        format!("http://host.env86.internal:{}", self.port)
    }

    /// Makes the container image, in the folder `layout`.
    fn container(&self) -> Result<()> {
        let base = self.folder.join("base");
        for below in ["boot", "dev", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/log"] {
            fs::create_dir_all(base.join(below))?;
        }
        symlink("/run", base.join("var/run"))?;
        let debian = image_root()?;
        put(&debian.join("bin/busybox"), &base, "bin/busybox")?;
        put(&debian.join("lib/ld-linux.so.2"), &base, "lib/ld-linux.so.2")?;
        put(&debian.join(LIBRARIES).join("libc.so.6"), &base, &format!("{LIBRARIES}/libc.so.6"))?;
        put(&debian.join("etc/udhcpc"), &base, "etc/udhcpc")?;
        put(&workspace().join("tests/alpine/base"), &base, ".")?;
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", base.join("bin").join(applet))?;
        }
        for applet in ["getty", "init", "reboot"] {
            symlink("../bin/busybox", base.join("sbin").join(applet))?;
        }
        fs::create_dir(base.join("etc/apk"))?;
        fs::write(base.join("etc/apk/repositories"), self.mirror())?;
        layout(&base, &self.folder.join("layout"))
    }

    /// Puts a package into the repository, of files and where they belong, and of what `tests/alpine` has of it.
    fn package(&self, name: &str, files: &[(PathBuf, &str)]) -> Result<()> {
        let tree = self.folder.join("packages").join(name);
        fs::create_dir_all(&tree)?;
        for (from, to) in files {
            put(from, &tree, to)?;
        }
        let own = workspace().join("tests/alpine").join(name);
        if own.exists() {
            put(&own, &tree, ".")?;
        }
        let place = self.folder.join("mirror").join(format!("{name}.tar"));
        ran(Command::new("tar")
            .args(["-c", "--owner=0", "--group=0", "-f"])
            .arg(place)
            .arg("-C")
            .arg(tree)
            .arg("."))
    }

    fn openrc_and_agetty(&self) -> Result<()> {
        let (debian, openrc) = (image_root()?, net_image_root()?);
        let program = |name: &str| (openrc.join("sbin").join(name), format!("sbin/{name}"));
        let library = |name: &str| (openrc.join(LIBRARIES).join(name), format!("{LIBRARIES}/{name}"));
        let mut files: Vec<(PathBuf, String)> =
            ["openrc", "openrc-run", "rc-service", "rc-update"].map(program).into();
        files.extend(
            [
                "audit.so.1",
                "cap-ng.so.0",
                "einfo.so.1",
                "pam.so.0",
                "pam_misc.so.0",
                "pcre2-8.so.0",
                "rc.so.1",
                "selinux.so.1",
            ]
            .map(|name| library(&format!("lib{name}"))),
        );
        files.push((openrc.join("bin/rc-status"), "bin/rc-status".into()));
        for folder in ["lib/rc", "etc/rc.conf"] {
            files.push((openrc.join(folder), folder.into()));
        }
        let files: Vec<(PathBuf, &str)> =
            files.iter().map(|(from, to)| (from.clone(), to.as_str())).collect();
        for level in ["boot", "default", "shutdown", "sysinit"] {
            fs::create_dir_all(self.folder.join("packages/openrc/etc/runlevels").join(level))?;
        }
        self.package("openrc", &files)?;
        self.package("agetty", &[(debian.join("sbin/agetty"), "sbin/agetty")])
    }

    fn kernel_and_its_programs(&self) -> Result<()> {
        let debian = image_root()?;
        let modules = debian.join("lib/modules");
        let release = env86_tests::only_file(&modules, "")?;
        let release = release.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let note = self.folder.join("kernel.release");
        fs::write(&note, format!("{release}\n"))?;
        self.package(
            "linux-lts",
            &[
                (debian.join(format!("boot/vmlinuz-{release}")), "boot/vmlinuz-lts"),
                (modules, "lib/modules"),
                (note, "usr/share/kernel/lts/kernel.release"),
            ],
        )?;
        for name in ["alpine-base", "alpine-conf", "linux-firmware-none", "linux-firmware-sb16"] {
            self.package(name, &[])?;
        }
        let program = workspace().join("images/debian/initramfs-init");
        self.package("mkinitfs", &[(program, "usr/share/mkinitfs/initramfs-init")])?;
        let mirror = self.folder.join("mirror");
        // It comes from a repository of its own.
        Ok(fs::rename(mirror.join("mkinitfs.tar"), mirror.join("edge/mkinitfs.tar"))?)
    }

    /// Runs env86 here, as if there were neither Docker nor Podman; gives what it said.
    fn env86(&self, words: &[&str]) -> Result<String> {
        let mut env86 = bound_to_us(program()?);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.folder.join("engines").into_os_string(), path].join(OsStr::new(":"));
        env86.current_dir(&self.folder).env("PATH", path).env("XDG_CACHE_HOME", self.folder.join("cache"));
        env86
            .args(words)
            .args(["--allow-host", &self.port.to_string(), "--kernel"])
            .arg(fs::canonicalize(image()?)?);
        let output = env86.output()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {text}");
        Ok(text)
    }

    /// Builds the same image twice, as a directory by `create` and by `build`: the second time all is there.
    fn built(&self, dockerfile: &str) -> Result<PathBuf> {
        fs::write(self.folder.join("context/Dockerfile"), dockerfile)?;
        let text = self.env86(&["create", "--from-docker", "context/Dockerfile", "--no-guest", "image"])?;
        assert!(text.contains("neither docker nor podman"), "{text}");
        let steps = text.matches(" RUN ").count();
        assert_eq!(steps, dockerfile.matches("\nRUN ").count(), "{text}");
        let text = self.env86(&["build", "--no-guest", "-t", "./again", "context"])?;
        assert_eq!(text.matches(" CACHED").count(), steps, "{text}");
        let index = |image: &str| fs::read(self.folder.join(image).join("fs.json"));
        assert!(index("image")? == index("again")?);
        Ok(self.folder.join("image"))
    }

    /// Boots an image and does a script's steps.
    fn boot(&self, image: &Path, flags: &[&str], script: &str) -> Result<()> {
        let mut env86 = bound_to_us(program()?);
        env86.arg("boot").arg(image).args(flags).args(["--no-console", "--script", "-"]);
        let mut child = env86.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// What is typed at either console, and what it says there: `printf` puts together what the echo must not contain.
const ASKED: &str = "printf 'on %s of %s\\\\n' $(tty) $(cat /proc/1/comm)\\n";

#[test]
fn an_alpine_with_openrc_reaches_its_prompts_on_another_kernel() -> Result<()> {
    let alpine = Alpine::new("alpine")?;
    alpine.openrc_and_agetty()?;
    let image = alpine.built(
        "FROM ./layout\n\
         RUN apk add agetty openrc\n\
         RUN sed -i 's,/getty 38400 tty1,/agetty -a root tty1 linux,' /etc/inittab\n\
         RUN echo ttyS0::once:/sbin/agetty -a root -s ttyS0 115200 vt100 >> /etc/inittab\n\
         RUN echo root:root | chpasswd\n",
    )?;
    let script = format!(
        "wait-serial \"(automatic login)\" 4m\nwait-serial \":~#\" 60s\nsend \"{ASKED}\"\n\
         wait-serial \"on /dev/ttyS0 of init\" 60s\n\
         wait-screen \":~#\" 60s\ntype \"{ASKED}\"\nwait-screen \"on /dev/tty1 of init\" 60s\n\
         send \"echo in $(rc-status -r), $(grep -c '^root:.6.' /etc/shadow) password\\n\"\n\
         wait-serial \"in default, 1 password\" 60s\n"
    );
    alpine.boot(&image, &[], &script)
}

#[test]
#[ignore = "`make alpine`: three times as many commands, with a kernel's modules"]
fn a_whole_alpine_boots_its_own_kernel() -> Result<()> {
    let alpine = Alpine::new("alpine-whole")?;
    alpine.openrc_and_agetty()?;
    alpine.kernel_and_its_programs()?;
    let (mirror, blank) = (alpine.mirror(), ' ');
    let image = alpine.built(&format!(
        r#"FROM ./layout
ENV KERNEL=lts PASSWORD='root'
ENV HOSTNAME=localhost
RUN apk add agetty \
        openrc \
        alpine-conf alpine-base
# The blank behind the first backslash below is as people have it.
RUN if [ "$KERNEL" != lts ]; then \{blank}
        apk add linux-$KERNEL; \
    else \
        apk add linux-lts linux-firmware-none \
            linux-firmware-sb16; \
    fi
# From a repository of its own.
RUN apk add --no-cache --allow-untrusted --repository {mirror}/edge mkinitfs
RUN echo -e "grep -q localhost /etc/hosts || echo '127.0.0.1 localhost' > /etc/hosts\nrmmod ne2k-pci && modprobe ne2k-pci\nhwclock -s\nsetup-interfaces -a -r" > /root/networking.sh && \
    chmod +x /root/networking.sh
RUN sed -i 's,/getty 38400 tty1,/agetty -a root tty1 linux,' /etc/inittab
RUN echo ttyS0::once:/sbin/agetty -a root -s ttyS0 115200 vt100 >> /etc/inittab; echo root:$PASSWORD | chpasswd
RUN for service in dmesg devfs hwdrivers mdev; do rc-update add $service sysinit; done
RUN for service in bootmisc hostname hwclock modules sysctl; do rc-update add $service boot; done; \
    rc-update add killprocs shutdown
RUN mkinitfs -F "base virtio 9p ata scsi" $(cat /usr/share/kernel/$KERNEL/kernel.release)
"#
    ))?;
    // The kernel that has run the commands is not the image's.
    let config: Value =
        serde_json::from_slice(&fs::read(image.join("image.json"))?).map_err(std::io::Error::from)?;
    assert!(config["bzimage_initrd_from_filesystem"] == true && config.get("bzimage").is_none(), "{config}");
    let script = format!(
        "wait-serial \"localhost:~# \" 4m\nsend \"{ASKED}\"\nwait-serial \"on /dev/ttyS0 of init\" 60s\n\
         wait-screen \"localhost:~#\" 60s\ntype \"{ASKED}\"\nwait-screen \"on /dev/tty1 of init\" 60s\n\
         send \"echo of boot $(rc-status boot | grep -c started)\\n\"\nwait-serial \"of boot 5\" 60s\n\
         send \"./networking.sh && wget -q -O - {mirror}/hello\\n\"\nwait-serial \"from the mirror\" 2m\n"
    );
    // In graphics, which `hwdrivers` would find a driver for, a script reads no text.
    let flags = ["--append", "nomodeset", "--net", "--allow-host", &alpine.port.to_string()];
    alpine.boot(&image, &flags, &script)
}
