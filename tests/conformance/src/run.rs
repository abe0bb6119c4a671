//! Runs forms and counts.

use std::fmt::Write;

use crate::compare::differences;
use crate::generate::{Case, Form, Patterns, case};
use crate::guest::Guest;
use crate::layout::{BYTES, Image};
use crate::native::Native;
use crate::report::disassemble;
use crate::rng::Rng;
use crate::segments::CODE16;
use crate::state::{Outcome, flag};

/// Runs on the host that must all differ.
const RETRIES: u32 = 3;

/// How much to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Cases for each form.
    pub cases: u32,
    /// Where random numbers start.
    pub seed: u64,
    /// How many mismatches of a form to describe.
    pub show: u32,
}

/// What came of a form.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases run.
    pub cases: u64,
    /// Cases that differ.
    pub mismatches: u64,
    /// Cases that ended in something else than the marker behind the instruction.
    pub faults: u64,
    /// Descriptions.
    pub shown: Vec<String>,
}

/// Both processors.
pub struct Bench {
    native: Native,
    guest: Guest,
    start: Box<Image>,
    ours: Box<Image>,
    theirs: Box<Image>,
}

impl Bench {
    /// Sets both up.
    pub fn new() -> std::io::Result<Self> {
        let blank: Box<Image> = vec![0; BYTES].try_into().unwrap_or_else(|_| unreachable!());
        Ok(Self {
            native: Native::new()?,
            guest: Guest::new(),
            start: blank.clone(),
            ours: blank.clone(),
            theirs: blank,
        })
    }

    /// Runs the cases of a form.
    pub fn form(&mut self, form: &Form, plan: Plan) -> Tally {
        let hash =
            form.title.bytes().fold(plan.seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut rng = Rng::new(hash);
        let mut patterns = Patterns::new(&mut rng);
        let mut tally = Tally::default();
        for i in 0..plan.cases {
            if i % 1024 == 1023 {
                patterns = Patterns::new(&mut rng);
            }
            let case = case(form, &patterns, &mut rng, &mut self.start);
            self.ours.copy_from_slice(&self.start[..]);
            self.theirs.copy_from_slice(&self.start[..]);
            let ours = self.guest.run(&case.regs, &mut self.ours);
            let mut host = self.native.run(&case.regs, &mut self.theirs);
            let mut d = differences(&form.name, &case, &ours, &host, &self.ours, &self.theirs);
            // A task switch on the host can lose x87 pointers, so a difference must be there again.
            for _ in 0..RETRIES {
                if d.is_empty() {
                    break;
                }
                self.theirs.copy_from_slice(&self.start[..]);
                host = self.native.run(&case.regs, &mut self.theirs);
                d = differences(&form.name, &case, &ours, &host, &self.ours, &self.theirs);
            }
            tally.cases += 1;
            tally.faults += u64::from(!matches!(host.end, crate::state::End::Vector(3, ..)));
            if !d.is_empty() {
                tally.mismatches += 1;
                if tally.mismatches <= plan.show.into() {
                    tally.shown.push(describe(form, &case, &host, &d));
                }
            }
        }
        tally
    }
}

fn describe(form: &Form, case: &Case, host: &Outcome, differences: &[String]) -> String {
    let mut s = String::new();
    let r = &case.regs;
    let bytes: Vec<_> = case.bytes.iter().map(|b| format!("{b:02x}")).collect();
    let _ = writeln!(
        s,
        "{}: {}   {}",
        form.title,
        bytes.join(" "),
        disassemble(&case.bytes, r.eip, r.seg[1] == CODE16)
    );
    let [a, c, d, b, sp, bp, si, di] = r.gpr;
    let _ = writeln!(
        s,
        "  before eax {a:08x} ecx {c:08x} edx {d:08x} ebx {b:08x} esp {sp:08x} ebp {bp:08x} esi {si:08x} edi {di:08x}"
    );
    let _ = writeln!(
        s,
        "         eip {:08x} [{}] es cs ss ds fs gs {:x?}; host ended {:x?} at {:x}",
        r.eip,
        flag::names(r.eflags),
        r.seg,
        host.end,
        host.regs.eip
    );
    let f = &r.fx;
    if ["x87", "mmx"].contains(&form.group) {
        let _ = writeln!(
            s,
            "         x87 control {:04x} status {:04x} valid {:02x} mxcsr {:04x}",
            f.control, f.status, f.valid, f.mxcsr
        );
        for (i, (m, e)) in f.st.iter().enumerate() {
            let _ = writeln!(s, "         st{i} {e:04x}:{m:016x}");
        }
    }
    if form.group == "sse" {
        for (i, x) in f.xmm.iter().enumerate() {
            let _ = writeln!(s, "         xmm{i} {x:032x}");
        }
    }
    for line in differences {
        let _ = writeln!(s, "  {line}");
    }
    s
}
