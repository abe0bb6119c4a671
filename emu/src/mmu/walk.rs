//! Page walks (Intel SDM volume 3, chapter 4): 32-bit paging with 4 MiB pages, and PAE.

use crate::Memory;
use crate::exception::{Exception, Result};

/// CR0.WP: supervisor writes respect read-only pages.
pub const CR0_WP: u32 = 1 << 16;
/// CR0.PG: paging.
pub const CR0_PG: u32 = 1 << 31;
/// CR4.PSE: 4 MiB pages.
pub const CR4_PSE: u32 = 1 << 4;
/// CR4.PAE: three-level paging with 64-bit entries.
pub const CR4_PAE: u32 = 1 << 5;
/// CR4.PGE: global pages.
pub const CR4_PGE: u32 = 1 << 7;

const P: u32 = 1 << 0;
const RW: u32 = 1 << 1;
const US: u32 = 1 << 2;
const A: u32 = 1 << 5;
const D: u32 = 1 << 6;
const PS: u32 = 1 << 7;
const G: u32 = 1 << 8;
/// Address bits of a 4 MiB page's entry that PSE-36 would use; without it they are reserved.
const PSE_RESERVED: u32 = 0x003f_e000;
/// Bits 63 (no NX here) and 62-36 (36-bit physical addresses).
const PAE_RESERVED_HIGH: u32 = 0xffff_fff0;
/// Address bits of a 2 MiB page's entry below its alignment, less PAT.
const PAE_LARGE_RESERVED: u32 = 0x001f_e000;
/// What a PDPTE must not have: bits 1, 2, 5-8.
const PDPTE_RESERVED: u32 = 0x1e6;

/// Page-fault error code bits.
mod error {
    pub const PRESENT: u16 = 1 << 0;
    pub const WRITE: u16 = 1 << 1;
    pub const USER: u16 = 1 << 2;
    pub const RESERVED: u16 = 1 << 3;
}

/// The control registers that decide how an address is translated.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// CR0.
    pub cr0: u32,
    /// CR3.
    pub cr3: u32,
    /// CR4.
    pub cr4: u32,
    /// The four PDPTEs loaded with CR3 under PAE.
    pub pdpte: [u64; 4],
}

/// What is asked of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// A write.
    pub write: bool,
    /// With user privilege (CPL 3 and not a system access).
    pub user: bool,
}

/// A translated page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Physical address of the 4 KiB page.
    pub physical: u32,
    /// Accesses of this privilege may write, and the dirty bit is set.
    pub writable: bool,
    /// Global.
    pub global: bool,
    /// Part of a large page.
    pub large: bool,
}

impl Paging {
    /// Translates the page that `linear` is in and sets accessed and dirty bits.
    #[inline]
    pub fn walk(&self, mem: &mut Memory, linear: u32, access: Access) -> Result<Page> {
        if self.cr0 & CR0_PG == 0 {
            return Ok(Page { physical: linear & !0xfff, writable: true, global: false, large: false });
        }
        if self.cr4 & CR4_PAE != 0 {
            self.walk_pae(mem, linear, access)
        } else {
            self.walk_32(mem, linear, access)
        }
    }

    #[inline]
    fn walk_32(&self, mem: &mut Memory, linear: u32, access: Access) -> Result<Page> {
        let pde_at = (self.cr3 & !0xfff) | (linear >> 20 & 0xffc);
        let pde = mem.read_u32(pde_at);
        if pde & P == 0 {
            return Err(fault(access, 0));
        }
        if pde & PS != 0 && self.cr4 & CR4_PSE != 0 {
            if pde & PSE_RESERVED != 0 {
                return Err(fault(access, error::PRESENT | error::RESERVED));
            }
            let dirty = self.check(pde, access)?;
            set_bits(mem, pde_at, pde, A | dirty);
            let physical = (pde & 0xffc0_0000) | (linear & 0x003f_f000);
            return Ok(self.page(physical, pde, pde | dirty, access, true));
        }
        let pte_at = (pde & !0xfff) | (linear >> 10 & 0xffc);
        let pte = mem.read_u32(pte_at);
        if pte & P == 0 {
            return Err(fault(access, 0));
        }
        let both = pde & pte & (RW | US);
        let dirty = self.check(both, access)?;
        set_bits(mem, pde_at, pde, A);
        set_bits(mem, pte_at, pte, A | dirty);
        Ok(self.page(pte & !0xfff, both, pte | dirty, access, false))
    }

    fn walk_pae(&self, mem: &mut Memory, linear: u32, access: Access) -> Result<Page> {
        let pdpte = self.pdpte[(linear >> 30) as usize];
        if pdpte as u32 & P == 0 {
            return Err(fault(access, 0));
        }
        let pde_at = (pdpte as u32 & !0xfff) | (linear >> 18 & 0xff8);
        let (pde, pde_high) = (mem.read_u32(pde_at), mem.read_u32(pde_at | 4));
        if pde & P == 0 {
            return Err(fault(access, 0));
        }
        if pde_high & PAE_RESERVED_HIGH != 0 || pde & PS != 0 && pde & PAE_LARGE_RESERVED != 0 {
            return Err(fault(access, error::PRESENT | error::RESERVED));
        }
        if pde & PS != 0 {
            let dirty = self.check(pde, access)?;
            set_bits(mem, pde_at, pde, A | dirty);
            let physical = (pde & 0xffe0_0000) | (linear & 0x001f_f000);
            return Ok(self.page(physical, pde, pde | dirty, access, true));
        }
        let pte_at = (pde & !0xfff) | (linear >> 9 & 0xff8);
        let (pte, pte_high) = (mem.read_u32(pte_at), mem.read_u32(pte_at | 4));
        if pte & P == 0 {
            return Err(fault(access, 0));
        }
        if pte_high & PAE_RESERVED_HIGH != 0 {
            return Err(fault(access, error::PRESENT | error::RESERVED));
        }
        let both = pde & pte & (RW | US);
        let dirty = self.check(both, access)?;
        set_bits(mem, pde_at, pde, A);
        set_bits(mem, pte_at, pte, A | dirty);
        Ok(self.page(pte & !0xfff, both, pte | dirty, access, false))
    }

    /// Checks the combined rights of all levels; gives the D bit to set.
    #[inline]
    fn check(&self, rights: u32, access: Access) -> Result<u32> {
        let allowed = if access.user {
            rights & US != 0 && (!access.write || rights & RW != 0)
        } else {
            !access.write || rights & RW != 0 || self.cr0 & CR0_WP == 0
        };
        if !allowed {
            return Err(fault(access, error::PRESENT));
        }
        Ok(if access.write { D } else { 0 })
    }

    #[inline]
    fn page(&self, physical: u32, rights: u32, last: u32, access: Access, large: bool) -> Page {
        let may_write = rights & RW != 0 || !access.user && self.cr0 & CR0_WP == 0;
        Page {
            physical,
            writable: may_write && last & D != 0,
            global: last & G != 0 && self.cr4 & CR4_PGE != 0,
            large,
        }
    }

    /// Loads the PDPTEs that CR3 points to; reserved bits in a present one are #GP(0).
    pub fn load_pdptes(cr3: u32, mem: &Memory) -> Result<[u64; 4]> {
        let base = cr3 & !0x1f;
        let entries = std::array::from_fn(|i| mem.read_u64(base.wrapping_add(8 * i as u32)));
        let bad = |e: &u64| {
            *e as u32 & P != 0
                && (*e as u32 & PDPTE_RESERVED != 0 || (*e >> 32) as u32 & PAE_RESERVED_HIGH != 0)
        };
        if entries.iter().any(bad) { Err(Exception::GP0) } else { Ok(entries) }
    }
}

fn fault(access: Access, why: u16) -> Exception {
    let write = if access.write { error::WRITE } else { 0 };
    let user = if access.user { error::USER } else { 0 };
    Exception::page_fault(why | write | user)
}

fn set_bits(mem: &mut Memory, at: u32, entry: u32, bits: u32) {
    if entry & bits != bits {
        mem.write_u32(at, entry | bits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Access = Access { write: false, user: false };
    const WRITE: Access = Access { write: true, user: false };
    const USER_READ: Access = Access { write: false, user: true };

    /// A page directory at 1000h, a page table at 2000h that maps linear 0 to physical 5000h.
    fn one_page(flags: u32) -> (Box<Memory>, Paging) {
        let mut mem = Memory::new(1 << 20).unwrap();
        mem.write_u32(0x1000, 0x2000 | P | RW | US);
        mem.write_u32(0x2000, 0x5000 | flags);
        (mem, Paging { cr0: CR0_PG, cr3: 0x1000, cr4: 0, pdpte: [0; 4] })
    }

    #[test]
    fn a_read_sets_accessed_and_leaves_the_page_clean() {
        let (mut mem, paging) = one_page(P | RW);
        let page = paging.walk(&mut mem, 0x123, READ).unwrap();
        assert_eq!(page, Page { physical: 0x5000, writable: false, global: false, large: false });
        assert_eq!(mem.read_u32(0x2000) & (A | D), A);
    }

    #[test]
    fn a_write_sets_dirty() {
        let (mut mem, paging) = one_page(P | RW);
        assert!(paging.walk(&mut mem, 0, WRITE).unwrap().writable);
        assert_eq!(mem.read_u32(0x2000) & D, D);
    }

    #[test]
    fn write_protect_decides_over_supervisor_writes() {
        let (mut mem, mut paging) = one_page(P);
        assert!(paging.walk(&mut mem, 0, WRITE).is_ok());
        paging.cr0 |= CR0_WP;
        assert_eq!(paging.walk(&mut mem, 0, WRITE), Err(Exception::page_fault(3)));
    }

    #[test]
    fn user_access_to_a_supervisor_page_faults_with_the_right_code() {
        let (mut mem, paging) = one_page(P | RW);
        assert_eq!(paging.walk(&mut mem, 0, USER_READ), Err(Exception::page_fault(5)));
        assert_eq!(mem.read_u32(0x2000) & A, 0);
    }

    #[test]
    fn four_mib_pages_need_pse() {
        let (mut mem, mut paging) = one_page(P);
        mem.write_u32(0x1004, 0x0080_0000 | P | PS);
        paging.cr4 = CR4_PSE;
        assert_eq!(paging.walk(&mut mem, 0x0041_2345, READ).unwrap().physical, 0x0081_2000);
    }

    #[test]
    fn pae_maps_two_mib_pages_and_checks_reserved_bits() {
        let mut mem = Memory::new(1 << 20).unwrap();
        mem.write_u64(0x1000, 0x2001);
        mem.write_u64(0x2008, 0x0060_0000 | u64::from(P | PS));
        mem.write_u64(0x2010, 1 << 63 | u64::from(P | PS));
        let pdpte = Paging::load_pdptes(0x1000, &mem).unwrap();
        let paging = Paging { cr0: CR0_PG, cr3: 0x1000, cr4: CR4_PAE, pdpte };
        assert_eq!(paging.walk(&mut mem, 0x0020_1234, READ).unwrap().physical, 0x0060_1000);
        assert_eq!(paging.walk(&mut mem, 0x0040_0000, READ), Err(Exception::page_fault(9)));
    }
}
