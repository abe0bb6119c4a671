//! Disks and discs as a guest's drivers see them: Linux' ata_piix with the bus master and without.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use env86::machine::{DiskImage, DiskImageError, Drive, Form, Medium, Slot};
use env86::{Com, Image, Machine, SerialPort};
use env86_tests::media::{disc, hard_disk, noise};
use env86_tests::{
    BOOT_LIMIT, Failure, Guest, PROMPT, QUIET, QUIET_SHELL, Result, bound_to_us, image, md5_of, skipped,
};

/// Generous: CI machines are small and shared.
const LIMIT: Duration = Duration::from_secs(240);
/// Waits for the devices that come by themselves when the drives have been found, and
/// names them as the drives are on their cables: which disk Linux names first is chance, because it looks
/// at both of them at the same time.
const DRIVES: &str = "at() { ls /sys/bus/scsi/devices/$1/block 2> /dev/null; }
    until a=$(at 0:0:0:0) b=$(at 0:0:1:0) c=$(at 1:0:0:0); [ -b /dev/${a}2 -a -b /dev/$b -a -b /dev/$c ]
    do sleep 1; done
    for link in $a:hda ${a}2:hda2 $b:hdb $c:cd; do ln -sf ${link%:*} /dev/${link#*:}; done
    echo $(for d in $a $a/${a}1 $a/${a}2 $b $c; do cat /sys/block/$d/size; done)";
/// Loads the drivers; the devices come by themselves when the drives have been found.
const DRIVERS: &str = "modprobe -a ata_piix sd_mod sr_mod isofs ext4";
/// Writes through a file system and beside it, and looks whether all of it is on the disk, not only in
/// memory.
const WRITE: &str = "set -e
    mke2fs -F /dev/hda2 > /dev/null; mkdir -p /tmp/disk; mount -t ext4 /dev/hda2 /tmp/disk
    cd /tmp/disk; dd if=/dev/urandom of=one bs=64k count=100; mkdir dir; cp /bin/busybox dir/two
    md5sum one dir/two > sums; sync; cd /; umount /tmp/disk; echo 3 > /proc/sys/vm/drop_caches
    mount -t ext4 /dev/hda2 /tmp/disk; cd /tmp/disk; md5sum -c sums; cd /; umount /tmp/disk
    dd if=/bin/busybox of=/dev/hdb bs=4k seek=3 count=100 conv=notrunc oflag=direct
    dd if=/dev/hdb bs=4k skip=3 count=100 iflag=direct | cmp -n 409600 - /bin/busybox";
/// Reads the disc through its file system.
const READ_DISC: &str =
    "mkdir -p /tmp/disc && mount -t iso9660 -o ro /dev/cd /tmp/disc && cat /tmp/disc/words.txt &&
    md5sum < /tmp/disc/noise.bin && umount /tmp/disc";
const COMPLAINTS: &str = "dmesg | grep -iE 'ata[0-9].*(error|exception|failed|reset|timeout|limiting)|I/O error' \
    || true";

struct Media {
    folder: PathBuf,
}

impl Media {
    /// Two hard disks, the first with two partitions, and a disc.
    fn new(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder)?;
        let noise = noise(3_000_001);
        fs::write(folder.join("hda"), hard_disk(65_536, &[2000, 60_000]))?;
        fs::write(folder.join("hdb"), vec![0; 5 << 20])?;
        fs::write(folder.join("disc"), disc(&[("NOISE.BIN", &noise), ("WORDS.TXT", b"words\n")]))?;
        fs::write(folder.join("noise"), noise)?;
        Ok(Self { folder })
    }

    /// What [`READ_DISC`] prints.
    fn on_the_disc(&self) -> Result<String> {
        Ok(format!("words\n{}  -\n", md5_of(&self.folder.join("noise"))?))
    }

    fn flags(&self) -> Vec<String> {
        let path = |name| self.folder.join(name).display().to_string();
        let drives = [("--hda", path("hda")), ("--hdb", path("hdb")), ("--cdrom", path("disc"))];
        drives.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path]).collect()
    }
}

fn a_guest_uses_its_disks(name: &str, dma: bool, flags: &[&str]) -> Result<()> {
    let media = Media::new(name)?;
    let before = fs::read(media.folder.join("hda"))?;
    let flags = media.flags().into_iter().chain(flags.iter().map(ToString::to_string));
    let mut guest = Guest::shell(&image()?, flags)?;
    guest.run(DRIVERS, LIMIT)?;
    let sizes = guest.run(DRIVES, LIMIT)?;
    assert_eq!(sizes.trim_end(), "65536 2000 60000 10240 5948");
    let modes = guest.run("cat /sys/class/ata_device/*/dma_mode", LIMIT)?;
    assert_eq!(modes.matches("XFER_MW_DMA_2").count(), if dma { 3 } else { 0 }, "{modes}");
    guest.run(WRITE, LIMIT)?;
    assert_eq!(guest.run(READ_DISC, LIMIT)?, media.on_the_disc()?);
    let complaints = guest.run(COMPLAINTS, LIMIT)?;
    assert_eq!(complaints, "");
    drop(guest);
    assert!(fs::read(media.folder.join("hda"))? == before, "the image has been written to");
    Ok(fs::remove_dir_all(media.folder)?)
}

#[test]
fn by_the_bus_master() -> Result<()> {
    a_guest_uses_its_disks("disks-dma", true, &[])
}

#[test]
fn by_the_bus_master_with_acpi() -> Result<()> {
    a_guest_uses_its_disks("disks-acpi", true, &["--acpi"])
}

#[test]
fn through_the_data_port() -> Result<()> {
    a_guest_uses_its_disks("disks-pio", false, &["--append", "libata.dma=0"])
}

/// An image that is late by a time of chance, up to this.
const LATEST: Duration = Duration::from_millis(4);

#[derive(Debug)]
struct Late {
    image: Vec<u8>,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// What the drive waits for, and when it comes.
    read: Option<(u64, usize, Instant)>,
    waker: Option<Waker>,
    /// Reads that were late.
    count: u64,
}

impl DiskImage for Late {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Poll<Result<(), DiskImageError>> {
        let mut asked = self.asked.lock().expect("no thread panics with it");
        let wait = match asked.read {
            Some((at, len, when)) if (at, len) == (offset, buf.len()) => {
                if Instant::now() >= when {
                    asked.read = None;
                    return self.image.read(offset, buf);
                }
                return Poll::Pending;
            }
            _ => RandomState::new().hash_one(asked.count) % LATEST.as_nanos() as u64,
        };
        let wait = Duration::from_nanos(wait);
        asked.count += 1;
        asked.read = Some((offset, buf.len(), Instant::now() + wait));
        let waker = asked.waker.clone();
        thread::spawn(move || {
            thread::sleep(wait);
            waker.iter().for_each(Waker::wake_by_ref);
        });
        Poll::Pending
    }

    fn wake_by(&self, waker: &Waker) {
        self.asked.lock().expect("no thread panics with it").waker = Some(waker.clone());
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::from(io::Error::other(error))
}

/// Waits for the shell of a machine that boots, and makes it one that neither prompts nor echoes.
fn quiet(com1: &mut SerialPort) -> Result<()> {
    com1.expect(PROMPT, BOOT_LIMIT).map_err(failed)?;
    com1.write_all(QUIET.as_bytes())?;
    com1.expect(QUIET_SHELL, LIMIT).map_err(failed)?;
    Ok(())
}

/// Runs a command in a shell that does not echo; its output.
fn run(com1: &mut SerialPort, command: &str) -> Result<String> {
    com1.write_all(format!("{{ {command}\n}} 2>&1; echo \"status=$?;\"\n").as_bytes())?;
    let output = com1.expect("status=", LIMIT).map_err(failed)?;
    let status = com1.expect(";\r\n", LIMIT).map_err(failed)?;
    assert_eq!(status, "0;\r\n", "{command}: {output}");
    Ok(output.trim_end_matches("status=").replace("\r\n", "\n"))
}

fn late_media_do_as_well(name: &str, dma: bool, append: &str) -> Result<()> {
    let media = Media::new(name)?;
    let late = |name| -> Result<Medium> {
        let image = fs::read(media.folder.join(name))?;
        Ok(Medium::new(Late { image, asked: Mutex::default() }, Form::Written))
    };
    let image = Image::open(image()?).map_err(failed)?;
    let machine = Machine::builder()
        .image(&image)
        .cold()
        .append(append)
        .medium(Slot::Hda, late("hda")?)
        .medium(Slot::Hdb, late("hdb")?)
        .medium(Slot::Cdrom, late("disc")?)
        .start()
        .map_err(failed)?;
    let mut com1 = machine.serial(Com::One);
    quiet(&mut com1)?;
    run(&mut com1, DRIVERS)?;
    assert_eq!(run(&mut com1, DRIVES)?.trim_end(), "65536 2000 60000 10240 5948");
    let modes = run(&mut com1, "cat /sys/class/ata_device/*/dma_mode")?;
    assert_eq!(modes.matches("XFER_MW_DMA_2").count(), if dma { 3 } else { 0 }, "{modes}");
    run(&mut com1, WRITE)?;
    assert_eq!(run(&mut com1, READ_DISC)?, media.on_the_disc()?);
    assert_eq!(run(&mut com1, COMPLAINTS)?, "");
    machine.stop().map_err(failed)?;
    Ok(fs::remove_dir_all(media.folder)?)
}

#[test]
fn by_the_bus_master_from_late_media() -> Result<()> {
    late_media_do_as_well("disks-late-dma", true, "")
}

#[test]
fn through_the_data_port_from_late_media() -> Result<()> {
    late_media_do_as_well("disks-late-pio", false, "libata.dma=0")
}

/// Runs qemu-img, which is a part of Debian's package qemu-utils; `None` where it is not there.
fn qemu_img(args: &[&str]) -> Result<Option<String>> {
    match bound_to_us("qemu-img").args(args).output() {
        Ok(output) if output.status.code() == Some(127) => Ok(None),
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(output) => Err(failed(io::Error::other(format!("qemu-img {args:?}: {output:?}")))),
        Err(_) => Ok(None),
    }
}

/// What a guest has written is in the image, as QEMU reads it, when the program is killed; without `--persist`
/// the image stays as it was, a compressed one too.
#[test]
fn a_guest_uses_a_qcow2_image() -> Result<()> {
    const READ: &str = "modprobe -a ata_piix sd_mod ext4; until [ -b /dev/sda ]; do sleep 1; done";
    const MOUNT: &str = "mkdir -p /tmp/disk; mount -t ext4 /dev/sda /tmp/disk; cd /tmp/disk";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("qcow2");
    fs::create_dir_all(&folder)?;
    let [disk, packed] =
        ["disk.img", "packed.qcow2"].map(|name| folder.join(name).to_string_lossy().into_owned());
    if qemu_img(&["create", "-q", "-f", "qcow2", &disk, "100M"])?.is_none() {
        skipped("a_guest_uses_a_qcow2_image", "there is no qemu-img (package qemu-utils)");
        return Ok(());
    }
    let mut guest = Guest::shell(&image()?, ["--hda", &disk, "--persist"])?;
    guest.run(READ, LIMIT)?;
    let write = "mke2fs -F /dev/sda > /dev/null; {MOUNT}; dd if=/dev/urandom of=one bs=64k count=100; md5sum one > sums";
    guest.run(&format!("set -e; {}; sync", write.replace("{MOUNT}", MOUNT)), LIMIT)?;
    // Killed: what was not synchronised is lost.
    drop(guest);
    qemu_img(&["check", "-q", &disk])?;
    qemu_img(&["convert", "-c", "-O", "qcow2", &disk, &packed])?;
    let before = fs::read(&packed)?;
    let mut guest = Guest::shell(&image()?, ["--hda", &packed])?;
    guest.run(READ, LIMIT)?;
    guest.run(
        &format!("set -e; {MOUNT}; md5sum -c sums; dd if=/dev/zero of=one bs=64k count=50; sync"),
        LIMIT,
    )?;
    drop(guest);
    assert!(fs::read(&packed)? == before, "the image has been written to");
    Ok(fs::remove_dir_all(folder)?)
}

/// A disk in every place of both channels: Linux reads each, and all of them at once.
#[test]
fn a_guest_uses_four_hard_disks() -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("four-disks");
    fs::create_dir_all(&folder)?;
    let mut flags = Vec::new();
    let mut sums = Vec::new();
    for (i, flag) in ["--hda", "--hdb", "--hdc", "--hdd"].into_iter().enumerate() {
        let disk = folder.join(&flag[2..]);
        fs::write(&disk, &noise(8 << 20)[i << 20..][..4 << 20])?;
        sums.push(md5_of(&disk)?);
        flags.extend([flag.to_owned(), disk.to_string_lossy().into_owned()]);
    }
    let mut guest = Guest::shell(&image()?, &flags)?;
    let sums_of_all = "for disk in a b c d; do md5sum < /dev/sd$disk & done; wait";
    let read = format!("modprobe -a ata_piix sd_mod; until [ -b /dev/sdd ]; do sleep 1; done; {sums_of_all}");
    let read = guest.run(&read, LIMIT)?;
    for sum in sums {
        assert!(read.contains(&sum), "{read}");
    }
    drop(guest);
    Ok(fs::remove_dir_all(folder)?)
}

/// Linux' driver: reads, writes, sees another disk, and that there is none; a save in the middle of a
/// read goes on.
#[test]
fn a_guest_uses_its_floppy_disks() -> Result<()> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("floppies");
    fs::create_dir_all(&folder)?;
    let [first, second, state] = ["first", "second", "state"].map(|name| folder.join(name));
    fs::write(&first, noise(1440 << 10))?;
    fs::write(&second, &noise(2000 << 10)[1280 << 10..][..720 << 10])?;
    let sums = [md5_of(&first)?, md5_of(&second)?];
    let image = Image::open(image()?).map_err(failed)?;
    let machine = Machine::builder().image(&image).cold().fda(&first).fdb(&second);
    let machine = machine.start().map_err(failed)?;
    let mut com1 = machine.serial(Com::One);
    quiet(&mut com1)?;
    run(&mut com1, "modprobe floppy; until [ -b /dev/fd0 -a -b /dev/fd1 ]; do sleep 1; done")?;
    let sum_of = |sum: &str| format!("{sum}  -\n");
    assert_eq!(run(&mut com1, "md5sum < /dev/fd1")?, sum_of(&sums[1]));
    // Half of it is read when the machine is saved.
    com1.write_all(b"md5sum < /dev/fd0; echo done\n")?;
    thread::sleep(Duration::from_millis(50));
    machine.save(&state).map_err(failed)?;
    machine.stop().map_err(failed)?;
    let machine = Machine::builder().image(&image).state(&state).start().map_err(failed)?;
    let mut com1 = machine.serial(Com::One);
    let read = com1.expect("done\r\n", LIMIT).map_err(failed)?;
    assert!(read.contains(&sums[0]), "{read}");
    let write = "dd if=/bin/busybox of=/dev/fd0 bs=9k count=60 conv=fsync 2> /dev/null;
        echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/fd0 bs=9k count=60 2> /dev/null |
        cmp -n 552960 - /bin/busybox";
    run(&mut com1, write)?;
    machine.change_medium(Drive::Fda, Some(&second)).map_err(failed)?;
    // Linux looks for a change when three seconds have passed since it last did: no one is that fast.
    assert_eq!(run(&mut com1, "sleep 4; md5sum < /dev/fd0")?, sum_of(&sums[1]));
    machine.change_medium(Drive::Fda, None).map_err(failed)?;
    run(&mut com1, "! dd if=/dev/fd0 of=/dev/null count=1 2> /dev/null")?;
    assert!(fs::read(&first)? == noise(1440 << 10), "the image has been written to");
    machine.stop().map_err(failed)?;
    Ok(fs::remove_dir_all(folder)?)
}

/// Linux' driver of the virtio disk makes a file system and fills it; a machine that is saved then and resumed finds
/// all of it. The first image answers late.
#[test]
fn a_guest_uses_its_virtio_disk() -> Result<()> {
    const SIZE: u64 = 64 << 20;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("virtio-disk");
    fs::create_dir_all(&folder)?;
    let [disk, state] = ["disk", "state"].map(|name| folder.join(name));
    fs::File::create(&disk)?.set_len(SIZE)?;
    let late = || {
        let image = Late { image: vec![0; SIZE as usize], asked: Mutex::default() };
        Medium::new(image, Form::Written)
    };
    let image = Image::open(image()?).map_err(failed)?;
    let machine = Machine::builder().image(&image).cold().medium(Slot::VirtioDisk, late());
    let machine = machine.start().map_err(failed)?;
    let mut com1 = machine.serial(Com::One);
    quiet(&mut com1)?;
    run(&mut com1, "modprobe -a virtio_blk ext4; until [ -b /dev/vda ]; do sleep 1; done")?;
    assert_eq!(run(&mut com1, "cat /sys/block/vda/size /sys/block/vda/serial")?, "131072\nenv86-virtio-disk");
    let write = "mke2fs -F /dev/vda > /dev/null; mkdir -p /tmp/disk; mount -t ext4 /dev/vda /tmp/disk
        cd /tmp/disk; dd if=/dev/urandom of=one bs=1M count=8 2> /dev/null; md5sum one > sums; sync
        echo 3 > /proc/sys/vm/drop_caches; md5sum -c sums";
    assert_eq!(run(&mut com1, &format!("set -e; {write}"))?, "one: OK\n");
    run(
        &mut com1,
        "dd if=/dev/urandom of=/tmp/disk/two bs=1M count=4 2> /dev/null; cd /; echo 3 > /proc/sys/vm/drop_caches",
    )?;
    machine.save(&state).map_err(failed)?;
    machine.stop().map_err(failed)?;
    let machine =
        Machine::builder().image(&image).state(&state).virtio_disk(&disk).start().map_err(failed)?;
    let mut com1 = machine.serial(Com::One);
    let read = "set -e; cd /tmp/disk; echo 3 > /proc/sys/vm/drop_caches; md5sum -c sums; cd /
         umount /tmp/disk; mount -t ext4 /dev/vda /tmp/disk; stat -c %s /tmp/disk/two";
    assert_eq!(run(&mut com1, read)?, "one: OK\n4194304\n");
    machine.stop().map_err(failed)?;
    assert!(fs::read(&disk)?.iter().all(|byte| *byte == 0), "the image has been written to");
    Ok(fs::remove_dir_all(folder)?)
}
