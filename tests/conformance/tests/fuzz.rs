//! Short runs of the fuzzers; `env86-conformance --fuzz` has long ones.

use env86_conformance::fuzz;

const SEED: u64 = 86;

#[test]
fn kept_blocks_do_what_single_instructions_do() {
    let ended = fuzz::blocks(SEED, 300).unwrap_or_else(|e| panic!("{e}"));
    assert!(ended > 100, "only {ended} programs ended");
}

#[test]
fn decoders_agree() {
    let (agreed, found) = fuzz::decoder(SEED, 200_000, 20);
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(agreed > 100_000, "only {agreed} instructions");
}
