//! Disks and discs as a guest's drivers see them: Linux' ata_piix with the bus master and without, and a
//! BIOS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use env86_tests::media::{disc, hard_disk, noise};
use env86_tests::{Guest, Result, binutil, bound_to_us, built, image, md5_of, peers, program, skipped};

/// Generous: CI machines are small and shared.
const LIMIT: Duration = Duration::from_secs(240);
/// Loads the drivers, waits for the devices that come by themselves when the drives have been found, and
/// names them as the drives are on their cables: which disk Linux names first is chance, because it looks
/// at both of them at the same time.
const DRIVERS: &str = "modprobe -a ata_piix sd_mod sr_mod isofs ext4
    at() { ls /sys/bus/scsi/devices/$1/block 2> /dev/null; }
    until a=$(at 0:0:0:0) b=$(at 0:0:1:0) c=$(at 1:0:0:0); [ -b /dev/${a}2 -a -b /dev/$b -a -b /dev/$c ]
    do sleep 1; done
    ln -s $a /dev/hda; ln -s ${a}2 /dev/hda2; ln -s $b /dev/hdb; ln -s $c /dev/cd
    echo $(for d in $a $a/${a}1 $a/${a}2 $b $c; do cat /sys/block/$d/size; done)";
/// Writes through a file system and beside it, and looks whether all of it is on the disk, not only in
/// memory.
const WRITE: &str = "set -e
    mke2fs /dev/hda2 > /dev/null; mkdir -p /tmp/disk; mount -t ext4 /dev/hda2 /tmp/disk
    cd /tmp/disk; dd if=/dev/urandom of=one bs=64k count=100; mkdir dir; cp /bin/busybox dir/two
    md5sum one dir/two > sums; sync; cd /; umount /tmp/disk; echo 3 > /proc/sys/vm/drop_caches
    mount -t ext4 /dev/hda2 /tmp/disk; cd /tmp/disk; md5sum -c sums; cd /; umount /tmp/disk
    dd if=/bin/busybox of=/dev/hdb bs=4k seek=3 count=100 conv=notrunc oflag=direct
    dd if=/dev/hdb bs=4k skip=3 count=100 iflag=direct | cmp -n 409600 - /bin/busybox";
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
    let sizes = guest.run(DRIVERS, LIMIT)?;
    assert_eq!(sizes.trim_end(), "65536 2000 60000 10240 5948");
    let modes = guest.run("cat /sys/class/ata_device/*/dma_mode", LIMIT)?;
    assert_eq!(modes.matches("XFER_MW_DMA_2").count(), if dma { 3 } else { 0 }, "{modes}");
    guest.run(WRITE, LIMIT)?;
    let sums = guest.run(
        "mkdir -p /tmp/disc && mount -t iso9660 -o ro /dev/cd /tmp/disc && cat /tmp/disc/words.txt && \
         md5sum < /tmp/disc/noise.bin && umount /tmp/disc",
        LIMIT,
    )?;
    assert_eq!(sums, format!("words\n{}  -\n", md5_of(&media.folder.join("noise"))?));
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

/// One of the files of Debian's package seabios: where `make peers` has put it, or installed.
fn seabios(name: &str) -> Option<PathBuf> {
    let folders = [peers().join("v86/seabios"), PathBuf::from("/usr/share/seabios")];
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists())
}

#[test]
fn a_bios_starts_what_is_on_the_first_disk() -> Result<()> {
    let [object, disk] = ["bootsector.o", "bootsector.img"].map(built);
    binutil("as", &["--32", "-o", &object, "bootsector.s"]);
    binutil("objcopy", &["-O", "binary", "-j", ".text", &object, &disk]);
    let mut content = fs::read(&disk)?;
    for text in ["by block\n\0", "by sector\n\0"] {
        content.extend(text.as_bytes());
        content.resize(content.len().next_multiple_of(512), 0);
    }
    content.resize(4 << 20, 0);
    fs::write(&disk, content)?;
    // The second is QEMU's default. With ACPI it looks for system management mode, which is not here.
    for rom in ["bios.bin", "bios-256k.bin"] {
        let Some(bios) = seabios(rom) else {
            skipped("a_bios_starts_what_is_on_the_first_disk", "there is no SeaBIOS");
            return Ok(());
        };
        for flags in [&[][..], &["--acpi"]] {
            // A BIOS that does not start waits for ever.
            let mut command = bound_to_us("timeout");
            command.arg(LIMIT.as_secs().to_string()).arg(program()?);
            command.args(["boot", "--hda", &disk, "--ttyS0", "--no-console", "--debug-exit", "0xf4"]);
            command.arg("--no-reboot").args(flags).arg("--bios").arg(&bios).stdin(Stdio::null());
            let output = command.output()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!((output.status.code(), &*said), (Some(7), "by block\nby sector\n"), "{rom} {flags:?}");
        }
    }
    Ok(())
}
