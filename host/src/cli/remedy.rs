//! What a user of the command can do about an error: libraries say what is wrong, and know no flags.

use std::error::Error;

use env86::console::session::SessionError;
#[cfg(feature = "window")]
use env86::console::window::WindowError;
use env86::guest::GuestError;
use env86::machine::{DiskError, MachineError, StateFileError};
#[cfg(feature = "net")]
use env86::net::JoinError;
use env86_bios::BootError;
use env86_core::{ComputerError, PowerOnError};
use env86_devices::state::StateError;

use super::run::NoService;

/// The first remedy that is known for an error, or for one of its sources.
pub fn of(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(remedy) = remedy(error) {
            return Some(remedy);
        }
        next = error.source();
    }
    None
}

fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<MachineError>() {
        return match error {
            MachineError::NothingToStart => {
                Some("give an image, or --kernel FILE, --bios FILE or --self-test")
            }
            MachineError::NoBios => {
                Some("install SeaBIOS with `apt-get install seabios`, or give --bios FILE")
            }
            MachineError::StateDecides => Some("boot with --cold to choose anew"),
            MachineError::OtherImage { .. } => Some("give that image, or boot with --cold"),
            MachineError::ImageGone { .. } => Some("give the IMAGE, wherever it is now"),
            MachineError::NoNetworkCard => Some("choose one with --net-device, and boot with --cold"),
            #[cfg(feature = "net")]
            MachineError::Net(env86::net::NetError::Listen(_)) => {
                Some("choose another port with -p, or 0 for a free one")
            }
            #[cfg(feature = "net")]
            MachineError::Net(env86::net::NetError::Join(
                JoinError::Unreachable { .. } | JoinError::NoNetwork { .. },
            )) => Some("start it with `env86 network`, and give the URL that it prints with --net-join"),
            MachineError::Index { .. } => Some("make the image again with `env86 create`"),
            // These stand for the error inside.
            MachineError::State(error) => of(error),
            MachineError::Disk(error) => of(error),
            MachineError::Computer(error) => of(error),
            _ => None,
        };
    }
    #[cfg(feature = "net")]
    if let Some(error) = error.downcast_ref::<env86::net::NetError>() {
        return match error {
            env86::net::NetError::Door(_) => Some("choose another with --listen ADDRESS:PORT"),
            env86::net::NetError::Listen(_) => Some("choose another port with -p, or 0 for a free one"),
            _ => None,
        };
    }
    match error.downcast_ref() {
        Some(SessionError::Machine(error)) => return of(error),
        Some(SessionError::NoTerminal) => {
            return Some("start it in one, or give --no-console with --ttyS0 or --script FILE");
        }
        _ => {}
    }
    if error.is::<NoService>() {
        return Some(
            "make it anew with guest86: `env86 create --with-guest`, or `env86 pull --with-guest` of a container image; or, if its init starts guest86, say \"has_guest_service\": true in image.json",
        );
    }
    if let Some(error) = error.downcast_ref::<GuestError>() {
        return match error {
            GuestError::Silent => Some("boot it with --cold, or see with `env86 boot` what it does"),
            GuestError::Version(_) => Some("put this version's guest86 into the image"),
            GuestError::Machine(error) => of(error),
            _ => None,
        };
    }
    #[cfg(feature = "window")]
    if let Some(WindowError::NoDisplay(_)) = error.downcast_ref() {
        return Some(
            "give --tty for its screen in this terminal, or --no-console with --ttyS0 for its serial line or with --script FILE",
        );
    }
    if let Some(ComputerError::Board(_)) = error.downcast_ref() {
        // Nothing else that the user chooses can overlap.
        return Some("choose another port for --debug-exit");
    }
    if let Some(error) = error.downcast_ref::<PowerOnError>() {
        return match error {
            PowerOnError::TooLarge { .. } => Some("check the file, or give the machine more with --memory"),
            PowerOnError::NoKernel => {
                Some("give --kernel FILE, or --kernel IMAGE for the kernel of another image")
            }
            PowerOnError::MultibootByBios { .. } => Some("leave --bios out"),
            PowerOnError::ReadInside { .. } => Some("make the image again with `env86 create`"),
            PowerOnError::Pending | PowerOnError::File(_) => None,
        };
    }
    if let Some(BootError::Memory { .. }) = error.downcast_ref::<BootError>() {
        return Some("give it more with --memory");
    }
    if let Some(error) = error.downcast_ref::<StateError>() {
        return match error {
            StateError::NoState => Some("check the file"),
            StateError::Compressed => Some("decompress it first"),
            StateError::Version(_) => Some("save it again with a current v86"),
            StateError::TooManyPieces(_) => Some("boot without `async` to have the disks saved as a whole"),
            StateError::TooLarge(_) => Some("give the machine less memory, or larger disks as `async`"),
            StateError::OtherMachine(_) | StateError::File { .. } | StateError::Image(_) => None,
            _ => Some("use a copy, save it again with v86, or boot with --cold"),
        };
    }
    if let Some(StateFileError::Read { .. }) = error.downcast_ref::<StateFileError>() {
        return Some("check the path, or boot with --cold");
    }
    match error.downcast_ref::<DiskError>()? {
        DiskError::Missing { .. } => {
            Some("name it with --hda, --hdb, --hdc, --hdd, --cdrom or --virtio-disk FILE, or in image.json")
        }
        DiskError::NothingToKeep => {
            Some("name its image with --hda or --virtio-disk FILE, or boot without --persist and --overlay")
        }
        DiskError::InUse(_) => Some("end that one, or use a copy"),
        DiskError::OtherOverlay { .. } => {
            Some("give the --overlay that was made with this image, or a new name")
        }
        DiskError::NotKept { .. } => {
            Some("boot without --persist and --overlay, or from a directory with the image in one file")
        }
        _ => None,
    }
}
