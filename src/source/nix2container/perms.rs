//! Owners and permissions that files get in the layer instead of those in the store.
//!
//! The `perms` of a store path go in. They give each file its owner and mode by its path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ::regex::bytes::Regex;

use super::fault::{LayerFault, excerpt};
use super::header::{EntryOwner, LARGEST_ID};
use super::regex;
use super::spec::Perm;

/// The most expressions for one layer. Each may take half a megabyte.
const MAX_REGEXES: usize = 256;

/// Compiled expressions by their text. Most images use the same one for all store paths.
#[derive(Default)]
pub struct Regexes(HashMap<Box<str>, Regex>);

/// The `perms` of one store path.
pub struct Perms {
    /// The rules, as in the file.
    listed: Arc<[Perm]>,
    /// The expression of each, and the mode that it gives.
    rules: Vec<(Regex, Option<u32>)>,
}

impl Perms {
    /// Compiles the rules; `None` if there are none.
    pub fn new(
        listed: &Arc<[Perm]>,
        regexes: &mut Regexes,
    ) -> Result<Option<Arc<Self>>, LayerFault> {
        if listed.is_empty() {
            return Ok(None);
        }
        let rule = |perm: &Perm| {
            if let Some(name) = [&perm.uname, &perm.gname].into_iter().find(|n| n.contains('\0')) {
                return Err(LayerFault::Owner(excerpt(name)));
            }
            Ok((regexes.get(&perm.regex)?, mode(&perm.mode)?))
        };
        let rules = listed.iter().map(rule).collect::<Result<_, _>>()?;
        Ok(Some(Arc::new(Self { listed: listed.clone(), rules })))
    }

    /// Whether both have the same rules in the image's file.
    pub fn equals(&self, other: &Self) -> bool {
        self.listed == other.listed
    }

    /// The owner and the mode of the file at `path`, which has this mode in the store. A later rule
    /// overrides an earlier one.
    pub fn of(&self, path: &[u8], mode: u32) -> (EntryOwner<'_>, u32) {
        let (mut owner, mut mode) = (EntryOwner::ROOT, mode);
        for (perm, (regex, new_mode)) in self.listed.iter().zip(&self.rules) {
            if !regex.is_match(path) {
                continue;
            }
            (owner.uid, owner.gid) = (perm.uid, perm.gid);
            if !perm.uname.is_empty() {
                owner.uname = &perm.uname;
            }
            if !perm.gname.is_empty() {
                owner.gname = &perm.gname;
            }
            mode = new_mode.unwrap_or(mode);
        }
        (owner, mode)
    }
}

impl Regexes {
    fn get(&mut self, pattern: &str) -> Result<Regex, LayerFault> {
        let is_full = self.0.len() >= MAX_REGEXES;
        match self.0.entry(pattern.into()) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(_) if is_full => Err(LayerFault::TooManyRegexes(MAX_REGEXES)),
            Entry::Vacant(vacant) => Ok(vacant.insert(compile(pattern)?).clone()),
        }
    }
}

/// Compiles an expression of the image's file.
pub fn compile(pattern: &str) -> Result<Regex, LayerFault> {
    regex::compile(pattern).map_err(|what| LayerFault::Regex { regex: excerpt(pattern), what })
}

/// The mode as Go's `Sscanf` reads it with `%o`: the octal digits that it begins with.
fn mode(text: &str) -> Result<Option<u32>, LayerFault> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.trim_start_matches([' ', '\t']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let end = digits.find(|c| !('0'..='7').contains(&c)).unwrap_or(digits.len());
    let mode = u32::from_str_radix(&digits[..end], 8).ok();
    match mode.filter(|&mode| i64::from(mode) <= LARGEST_ID) {
        Some(mode) => Ok(Some(mode)),
        None => Err(LayerFault::Mode(excerpt(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_go_reads_it() {
        for (text, expected) in [
            ("", Some(None)),
            ("0755", Some(Some(0o755))),
            ("644", Some(Some(0o644))),
            (" 4755", Some(Some(0o4755))),
            ("+600", Some(Some(0o600))),
            // Go stops at the first character that is no octal digit.
            ("0o755", Some(Some(0))),
            ("0758", Some(Some(0o75))),
            ("7777777", Some(Some(0o7_777_777))),
            ("10000000", None),
            ("99999999999999999999", None),
            ("-1", None),
            ("rwx", None),
            ("é", None),
        ] {
            assert_eq!(mode(text).ok(), expected, "{text:?}");
        }
    }
}
