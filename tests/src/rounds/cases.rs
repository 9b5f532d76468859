//! How often each rule had something to judge, over the rounds of a run.

use std::collections::BTreeMap;
use std::fmt;

use chatty_simulations::history::Rule;

/// Cases in which a rule would have been broken if something were otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cases(BTreeMap<Rule, u64>);

impl Cases {
    /// Those of another round.
    pub fn add(&mut self, judged: &BTreeMap<Rule, u64>) {
        for (rule, count) in judged {
            *self.0.entry(*rule).or_default() += count;
        }
    }

    /// Rules that never had any: nothing is proven of them.
    pub fn idle(&self) -> Vec<Rule> {
        let idle = |rule: &Rule| self.0.get(rule).copied().unwrap_or_default() == 0;
        Rule::ALL.into_iter().filter(idle).collect()
    }
}

impl fmt::Display for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<_> = self.0.iter().map(|(rule, n)| format!("{rule} {n}")).collect();
        write!(f, "cases in which a rule had something to judge: {}", counts.join(", "))?;
        let idle: Vec<_> = self.idle().iter().map(ToString::to_string).collect();
        if !idle.is_empty() {
            write!(f, "\nrules that had nothing to judge: {}", idle.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_added_up_and_rules_without_any_are_named() {
        let mut cases = Cases::default();
        assert_eq!(cases.idle().len(), Rule::ALL.len());
        cases.add(&[(Rule::Lost, 3), (Rule::Missed, 1)].into());
        cases.add(&[(Rule::Lost, 4)].into());
        let text = cases.to_string();
        assert!(text.contains("judge: lost 7, missed 1\n"), "{text}");
        assert!(text.contains("nothing to judge: duplicated, "), "{text}");
        cases.add(&Rule::ALL.map(|rule| (rule, 1)).into());
        assert_eq!(cases.idle(), []);
        assert!(!cases.to_string().contains("nothing"), "{cases}");
    }
}
