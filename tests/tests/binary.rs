//! How what we ship is linked.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use stockade_tests::binaries::Binaries;
use stockade_tests::not_tested;

/// Of elf(5): a position independent executable's type, and the program header that names a loader.
const ET_DYN: u16 = 3;
const PT_INTERP: u32 = 3;

/// Type, and whether a loader is named, of a 64-bit little-endian ELF file.
fn elf(file: &[u8]) -> (u16, bool) {
    assert_eq!(&file[..6], b"\x7fELF\x02\x01", "not a 64-bit little-endian ELF file");
    let short = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap());
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let table = usize::try_from(u64::from_le_bytes(file[32..40].try_into().unwrap())).unwrap();
    let (size, count) = (usize::from(short(54)), usize::from(short(56)));
    assert!(count > 0);
    (short(16), (0..count).any(|index| word(table + index * size) == PT_INTERP))
}

/// As `.cargo/config.toml` has it; who builds otherwise builds this test otherwise, too.
#[test]
fn binary_is_linked_statically_and_can_be_loaded_anywhere() {
    if cfg!(target_feature = "crt-static") {
        assert_eq!(elf(&std::fs::read(&Binaries::get().stockade).unwrap()), (ET_DYN, false));
    } else {
        not_tested("that the binary is static", "this build is linked dynamically, by flags of its own");
    }
}
