//! Which device answers at which port: a table with an entry for each of the 65536.

/// A device as the decoder knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// No device.
    None,
    /// ISA DMA.
    Dma,
    /// Interrupt controllers.
    Pic,
    /// Interval timer.
    Pit,
    /// Ports 61h and 92h.
    SystemControl,
    /// Clock and CMOS.
    Rtc,
    /// Keyboard and mouse controller.
    Ps2,
    /// The latch that clears the FPU's error.
    FpuError,
    /// COM1 (0) to COM4 (3).
    Uart(u8),
    /// VGA registers.
    Vga,
    /// Bochs VBE registers.
    Vbe,
    /// Firmware configuration.
    FwCfg,
    /// Debug console.
    DebugConsole,
    /// The port that ends the program.
    DebugExit,
    /// PCI configuration and reset control.
    Pci,
    /// ACPI power management.
    Acpi,
    /// The command block of an IDE channel.
    Ide(u8),
    /// Device Control of an IDE channel.
    IdeControl(u8),
    /// The IDE channels' bus master.
    BusMaster,
    /// A base address of the virtio file system.
    P9(u8),
    /// A base address of the virtio console.
    VirtioConsole(u8),
}

/// Consecutive ports of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first port.
    pub base: u16,
    /// The device.
    pub target: Target,
}

/// The table.
pub struct PortMap {
    /// For each port the number of a region.
    index: Box<[u8]>,
    /// The regions; number 0 is of the ports that nobody claims.
    regions: Vec<Region>,
}

impl Default for PortMap {
    fn default() -> Self {
        let unclaimed = Region { base: 0, target: Target::None };
        Self { index: vec![0; 0x1_0000].into_boxed_slice(), regions: vec![unclaimed] }
    }
}

impl PortMap {
    /// Gives all ports back.
    pub fn clear(&mut self) {
        self.index.fill(0);
        self.regions.truncate(1);
    }

    /// Gives `count` ports from `base` on to a device, whoever had them before.
    pub fn claim(&mut self, base: u16, count: u16, target: Target) {
        let Ok(number) = u8::try_from(self.regions.len()) else {
            debug_assert!(false, "a board has fewer than 256 port regions");
            return;
        };
        self.regions.push(Region { base, target });
        let start = usize::from(base);
        let end = (start + usize::from(count)).min(self.index.len());
        self.index[start..end].fill(number);
    }

    /// Who answers at a port.
    pub fn find(&self, port: u16) -> Region {
        self.regions[usize::from(self.index[usize::from(port)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_claim_wins_and_ends_where_it_should() {
        let mut map = PortMap::default();
        map.claim(0x3f8, 8, Target::Uart(0));
        map.claim(0x3fa, 1, Target::Pic);
        assert_eq!(map.find(0x3f7).target, Target::None);
        assert_eq!(map.find(0x3f9), Region { base: 0x3f8, target: Target::Uart(0) });
        assert_eq!(map.find(0x3fa).target, Target::Pic);
        assert_eq!(map.find(0x3ff).target, Target::Uart(0));
        assert_eq!(map.find(0x400).target, Target::None);
        map.claim(0xfffe, 64, Target::Vga);
        assert_eq!(map.find(0xffff).target, Target::Vga);
        map.clear();
        assert_eq!(map.find(0x3f9).target, Target::None);
    }
}
