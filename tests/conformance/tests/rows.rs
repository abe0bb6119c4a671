//! Every row of the instruction tables, compared with the host's processor.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use env86_conformance::generate::forms;
use env86_conformance::native;
use env86_conformance::run::{Bench, Plan};

const PLAN: Plan = Plan { cases: 200, seed: 86, show: 1 };

#[test]
fn every_form_does_what_the_host_does() {
    println!("compared with {}", native::name());
    let mut bench = Bench::new().expect("32-bit code segments, executable shared memory");
    let mut shown = Vec::new();
    let mut mismatches = 0;
    for form in forms() {
        let tally = bench.form(&form, PLAN);
        mismatches += tally.mismatches;
        shown.extend(tally.shown);
    }
    assert_eq!(mismatches, 0, "beside {}:\n{}", native::name(), shown.join("\n"));
}
