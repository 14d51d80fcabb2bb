//! When a fault strikes: rules that a test writes, or chance from a seed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;

use super::fault::{At, Fault, Place};
use super::step::{Origin, Step};

/// Which of the requests that match a rule it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Every,
    /// This many requests at the beginning.
    First(u64),
    /// Only this one, counted from 1.
    Nth(u64),
    /// Every n-th request.
    EachNth(u64),
}

/// A fault, and the requests it is for.
#[derive(Clone, Debug)]
pub struct Rule {
    pub step: Option<Step>,
    pub method: Option<String>,
    /// A part of the path with query.
    pub path: Option<String>,
    /// `None` is the registry's and the token server's address, not the foreign one.
    pub origin: Option<Origin>,
    /// How long the body is, in bytes.
    pub length: RangeInclusive<u64>,
    pub times: Times,
    pub fault: Fault,
}

/// A request as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub origin: Origin,
    pub step: Step,
    pub method: &'a str,
    /// The path with query.
    pub target: &'a str,
    /// 0 if the request does not say it.
    pub length: u64,
}

impl Rule {
    /// Strikes every request.
    pub fn any(fault: Fault) -> Self {
        Self {
            step: None,
            method: None,
            path: None,
            origin: None,
            length: 0..=u64::MAX,
            times: Times::Every,
            fault,
        }
    }

    /// Strikes every request of a step.
    pub fn at(step: Step, fault: Fault) -> Self {
        Self { step: Some(step), ..Self::any(fault) }
    }

    pub fn times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    pub fn first(self, count: u64) -> Self {
        self.times(Times::First(count))
    }

    pub fn nth(self, n: u64) -> Self {
        self.times(Times::Nth(n))
    }

    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    pub fn path(mut self, part: &str) -> Self {
        self.path = Some(part.to_owned());
        self
    }

    pub fn on(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Only requests whose body is so many bytes long.
    pub fn of_length(mut self, length: RangeInclusive<u64>) -> Self {
        self.length = length;
        self
    }

    fn matches(&self, asked: Asked<'_>) -> bool {
        self.step.is_none_or(|wanted| wanted == asked.step)
            && self.method.as_deref().is_none_or(|wanted| wanted == asked.method)
            && self.path.as_deref().is_none_or(|part| asked.target.contains(part))
            && self.length.contains(&asked.length)
            && match self.origin {
                Some(wanted) => wanted == asked.origin,
                None => asked.origin != Origin::Foreign,
            }
    }
}

/// Faults by chance. The decision for a request depends on the seed, on the request, and on how
/// often the same request was seen before; not on the order of other requests. So a run can be
/// repeated if the client sends the same requests.
#[derive(Clone, Debug)]
pub struct Random {
    pub seed: u64,
    /// Of 1,000 requests, how many are struck.
    pub per_mille: u16,
    /// What strikes them; places in bodies are drawn anew each time.
    pub faults: Vec<Fault>,
    /// No more than so many in all.
    pub limit: Option<u64>,
}

impl Random {
    /// Transient faults without a limit.
    pub fn transient(seed: u64, per_mille: u16) -> Self {
        Self { seed, per_mille, faults: Fault::transient(), limit: None }
    }
}

/// Decides for each request what goes wrong with it.
#[derive(Default)]
pub struct Script {
    rules: Vec<(Rule, u64)>,
    random: Option<Random>,
    struck: u64,
    seen: HashMap<String, u64>,
}

impl Script {
    /// Replaces the rules; their counts start again.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules = rules.into_iter().map(|rule| (rule, 0)).collect();
    }

    pub fn add_rule(&mut self, rule: Rule) {
        self.rules.push((rule, 0));
    }

    pub fn set_random(&mut self, random: Option<Random>) {
        self.random = random;
        self.struck = 0;
        self.seen.clear();
    }

    /// The fault for a request: that of the first matching rule whose turn it is, otherwise a
    /// random one. A rule does not count requests that an earlier rule struck.
    pub fn choose(&mut self, asked: Asked<'_>) -> Option<Fault> {
        for (rule, count) in &mut self.rules {
            if !rule.matches(asked) {
                continue;
            }
            *count += 1;
            let strikes = match rule.times {
                Times::Every => true,
                Times::First(first) => *count <= first,
                Times::Nth(n) => *count == n,
                Times::EachNth(n) => count.is_multiple_of(n),
            };
            if strikes {
                return Some(rule.fault.clone());
            }
        }
        self.by_chance(asked)
    }

    fn by_chance(&mut self, asked: Asked<'_>) -> Option<Fault> {
        let Asked { origin, step, method, target, .. } = asked;
        let random = self.random.as_ref()?;
        if random.limit.is_some_and(|limit| self.struck >= limit) || random.faults.is_empty() {
            return None;
        }
        // Session ids and their states differ in every run, so requests with them are told apart by
        // digest only.
        let lasting = match (step, target.split_once("digest=")) {
            (Step::UploadPatch | Step::UploadStatus | Step::UploadDelete, _) => "",
            (Step::UploadPut, Some((_, digest))) => digest.split('&').next().unwrap_or(""),
            _ => target,
        };
        let what = format!("{origin:?} {method} {step:?} {lasting}");
        let count = self.seen.entry(what.clone()).or_default();
        *count += 1;
        let mut hasher = DefaultHasher::new();
        (random.seed, &what, *count).hash(&mut hasher);
        let mut draw = Draw(hasher.finish());
        if draw.below(1000) >= u64::from(random.per_mille) {
            return None;
        }
        self.struck += 1;
        let index = draw.below(random.faults.len() as u64) as usize;
        let percent = At::Percent(draw.below(101) as u8);
        Some(match random.faults[index].clone() {
            Fault::CutRequest { delivered, .. } => Fault::CutRequest { at: percent, delivered },
            Fault::CutResponse { reset, .. } => Fault::CutResponse { at: percent, reset },
            Fault::Stall { place: Place::RequestBody(_), hold } => {
                Fault::Stall { place: Place::RequestBody(percent), hold }
            }
            Fault::Stall { place: Place::ResponseBody(_), hold } => {
                Fault::Stall { place: Place::ResponseBody(percent), hold }
            }
            fault => fault,
        })
    }
}

/// Numbers from one seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
