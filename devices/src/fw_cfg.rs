//! QEMU's firmware configuration device, through which SeaBIOS learns of the machine (QEMU,
//! docs/specs/fw_cfg.rst).

/// Selects an item: 16-bit write.
pub const PORT_SELECT: u16 = 0x510;
/// Reads the selected item byte by byte.
pub const PORT_DATA: u16 = 0x511;

const SIGNATURE: u16 = 0x00;
const ID: u16 = 0x01;
const RAM_SIZE: u16 = 0x03;
const CPU_COUNT: u16 = 0x05;
const NUMA: u16 = 0x0d;
const MAX_CPUS: u16 = 0x0f;
const FILE_DIRECTORY: u16 = 0x19;
/// Files are numbered from here, as v86 does.
const FIRST_FILE: u16 = 0xc000;
/// Bytes for a file's name in the directory, with its end.
const NAME_SIZE: usize = 56;

/// A file for the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name: at most 55 bytes.
    pub name: String,
    /// Its contents.
    pub data: Vec<u8>,
}

/// The device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FwCfg {
    /// The selected item's contents.
    pub value: Vec<u8>,
    /// Bytes of it read.
    pub position: usize,
    memory_size: u32,
    files: Vec<File>,
}

impl FwCfg {
    /// A device that tells of `memory_size` bytes of RAM and has some files.
    pub fn new(memory_size: u32, files: Vec<File>) -> Self {
        Self { memory_size, files, ..Self::default() }
    }

    /// What a reset does.
    pub fn reset(&mut self) {
        self.value.clear();
        self.position = 0;
    }

    /// Writes the select port.
    pub fn select(&mut self, item: u16) {
        self.position = 0;
        self.value = match item {
            SIGNATURE => b"QEMU".to_vec(),
            ID => vec![0; 4],
            RAM_SIZE => u64::from(self.memory_size).to_le_bytes().to_vec(),
            CPU_COUNT | MAX_CPUS => 1u32.to_le_bytes().to_vec(),
            NUMA => vec![0; 16],
            FILE_DIRECTORY => self.directory(),
            _ => {
                let file = item.checked_sub(FIRST_FILE).and_then(|i| self.files.get(usize::from(i)));
                file.map_or_else(|| vec![0; 4], |file| file.data.clone())
            }
        };
    }

    /// Reads the data port: the next byte, zero beyond the item's end.
    pub fn read(&mut self) -> u8 {
        let byte = self.value.get(self.position).copied().unwrap_or(0);
        self.position = self.position.saturating_add(1);
        byte
    }

    /// The directory; its numbers are big-endian.
    fn directory(&self) -> Vec<u8> {
        let mut bytes = (self.files.len() as u32).to_be_bytes().to_vec();
        for (item, file) in (FIRST_FILE..).zip(&self.files) {
            bytes.extend((file.data.len() as u32).to_be_bytes());
            bytes.extend(item.to_be_bytes());
            bytes.extend([0; 2]);
            let mut name = file.name.clone().into_bytes();
            name.truncate(NAME_SIZE - 1);
            name.resize(NAME_SIZE, 0);
            bytes.extend(name);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(fw_cfg: &mut FwCfg, item: u16) -> [u8; N] {
        fw_cfg.select(item);
        core::array::from_fn(|_| fw_cfg.read())
    }

    #[test]
    fn items() {
        let mut fw_cfg = FwCfg::new(0x1000_0000, Vec::new());
        assert_eq!(read(&mut fw_cfg, SIGNATURE), *b"QEMU");
        assert_eq!(u64::from_le_bytes(read(&mut fw_cfg, RAM_SIZE)), 0x1000_0000);
        assert_eq!(read(&mut fw_cfg, CPU_COUNT), [1, 0]);
        assert_eq!(read(&mut fw_cfg, 0x8001), [0; 8]);
        assert_eq!(read(&mut fw_cfg, 0xffff), [0; 8]);
    }

    #[test]
    fn files_are_listed_and_read() {
        let file = File { name: "genroms/kernel.bin".to_owned(), data: vec![0x55, 0xaa, 1] };
        let mut fw_cfg = FwCfg::new(0, vec![file]);
        let directory: [u8; 68] = read(&mut fw_cfg, FILE_DIRECTORY);
        assert_eq!(directory[..12], [0, 0, 0, 1, 0, 0, 0, 3, 0xc0, 0, 0, 0]);
        assert_eq!(&directory[12..31], b"genroms/kernel.bin\0");
        assert_eq!(read(&mut fw_cfg, 0xc000), [0x55, 0xaa, 1, 0]);
    }
}
