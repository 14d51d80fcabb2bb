//! Names of files as Python reads them: as UTF-8, where each invalid byte becomes a surrogate (PEP
//! 383).

use std::cmp::Ordering;

/// The code points of a name.
pub fn code_points(name: &[u8]) -> impl Iterator<Item = u32> {
    name.utf8_chunks().flat_map(|chunk| {
        let escaped = chunk.invalid().iter().map(|byte| 0xdc00 + u32::from(*byte));
        chunk.valid().chars().map(u32::from).chain(escaped)
    })
}

/// Whether the name is valid UTF-8, so that Python reads it without surrogates.
pub fn is_utf8(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok()
}

/// The order of two names, which is that of their code points.
pub fn compare(a: &[u8], b: &[u8]) -> Ordering {
    // The order of UTF-8 bytes is the order of code points. That is not true for the surrogates of
    // invalid bytes.
    if is_utf8(a) && is_utf8(b) { a.cmp(b) } else { code_points(a).cmp(code_points(b)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::python;
    use super::*;

    /// Sorts the lines, names in hex.
    const SORTED: &str = "import sys
names = [bytes.fromhex(line).decode('utf-8', 'surrogateescape') for line in sys.stdin]
for name in sorted(names):
    print(name.encode('utf-8', 'surrogateescape').hex())
";

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn names_are_in_the_order_of_python(
            mut names in prop::collection::vec(
                prop_oneof![
                    "\\PC{0,3}".prop_map(String::into_bytes),
                    prop::collection::vec(0x7fu8.., 0..4),
                    "[\u{d7f0}-\u{e010}]{1,2}".prop_map(String::into_bytes),
                ],
                100,
            )
        ) {
            let hex = |names: &[Vec<u8>]| -> String {
                let line = |name: &Vec<u8>| -> String {
                    name.iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect()
                };
                names.iter().map(line).collect()
            };
            let theirs = python(SORTED, hex(&names).as_bytes());
            names.sort_by(|a, b| compare(a, b));
            prop_assert_eq!(hex(&names).into_bytes(), theirs);
        }
    }
}
