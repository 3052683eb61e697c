//! Each target with its seeds, whole, cut, and changed at random: a few thousand inputs, in a second or two.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use whence_fuzz::{TARGETS, Target};

/// Inputs of each target.
const INPUTS: usize = 10_000;

fn target(name: &str) {
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else { panic!("no target {name}") };
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        run(target, seed);
        for end in 0..seed.len().min(2000) {
            run(target, &seed[..end]);
        }
    }
    let mut random = StdRng::seed_from_u64(rand::random());
    for _ in 0..INPUTS {
        run(target, &changed(&seeds, &mut random));
    }
}

/// Shows the input that it fails on.
fn run(target: &Target, bytes: &[u8]) {
    let ran = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes)));
    assert!(ran.is_ok(), "{} fails on {}", target.name, bytes.escape_ascii());
}

/// A seed with some bits, bytes, numbers and parts of it changed.
fn changed(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
    let mut bytes = seeds[random.gen_range(0..seeds.len())].clone();
    for _ in 0..random.gen_range(1..6) {
        if bytes.is_empty() {
            bytes.push(random.r#gen());
        }
        let at = random.gen_range(0..bytes.len());
        match random.gen_range(0..6) {
            0 => bytes[at] ^= 1 << random.gen_range(0..8),
            1 => bytes[at] = random.r#gen(),
            2 => {
                let number = NUMBERS[random.gen_range(0..NUMBERS.len())].to_le_bytes();
                let length = 1 << random.gen_range(0..4);
                let end = (at + length).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            3 => bytes.truncate(at),
            4 => {
                let other = &seeds[random.gen_range(0..seeds.len())];
                let from = random.gen_range(0..other.len());
                bytes.splice(at..at, other[from..].iter().take(40).copied());
            }
            _ => {
                let end = (at + random.gen_range(1..20)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

#[test]
fn notes() {
    target("notes");
}

#[test]
fn arguments() {
    target("arguments");
}

#[test]
fn sql() {
    target("sql");
}

#[test]
fn record() {
    target("record");
}

#[test]
fn batch() {
    target("batch");
}

/// A seed that is refused at once tests nothing.
#[test]
fn seeds_are_what_the_readers_take() {
    use whence_collector::probe::notes;
    use whence_fuzz::seeds;
    for binary in seeds::binaries() {
        let locations = notes::of_data(&*binary, None).unwrap();
        assert_eq!(locations.len(), 2);
        assert!(locations.iter().flat_map(|location| &location.arguments).any(Result::is_ok));
    }
    for batch in seeds::batches() {
        let compressed = zstd::encode_all(&*batch, 1).unwrap();
        assert_eq!(
            whence_wire::decode(&compressed, &whence_wire::Limits::default()).unwrap().events.len(),
            4
        );
    }
}
