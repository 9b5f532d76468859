//! Texts before and after.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::explained::Explained;
use crate::list::{Genre, Mutant};
use crate::weave::{Constants, replace, weave};

/// A mutant that puts `replacement` where `part` stands first in `source`.
fn mutant(id: u32, source: &str, genre: Genre, part: &str, replacement: &str) -> Mutant {
    let start = source.find(part).unwrap();
    Mutant {
        id,
        file: "x.rs".into(),
        name: String::new(),
        genre,
        replacement: replacement.into(),
        range: Range { start, end: start + part.len() },
        returns: String::new(),
        fingerprint: String::new(),
    }
}

fn woven(source: &str, mutants: &[Mutant]) -> String {
    let mutants: Vec<&Mutant> = mutants.iter().collect();
    let woven = weave(source, &mutants, &BTreeSet::new()).unwrap();
    for (place, id) in &woven.places {
        let mutant = mutants.iter().find(|mutant| mutant.id == *id).unwrap();
        assert!(woven.text[place.clone()].contains(&mutant.replacement));
    }
    assert_eq!(woven.places.len(), mutants.len(), "all are in it");
    woven.text
}

#[test]
fn an_operator_is_chosen_when_it_is_needed_and_operands_keep_their_own_mutants() {
    let source = "fn f(a: u8, b: u8) -> bool { a + b > 1 }";
    let mutants = [
        mutant(1, source, Genre::BinaryOperator, "+", "-"),
        mutant(2, source, Genre::BinaryOperator, "> 1", ">= 1"),
    ];
    let text = "fn f(a: u8, b: u8) -> bool { (if crate::woven::on(2) { a + b >= 1 } else { \
                (if crate::woven::on(1) { a - b } else { a + b }) > 1 }) }";
    assert_eq!(woven(source, &mutants), text);
}

#[test]
fn a_function_may_return_at_once_and_is_const_no_longer() {
    let source = "const fn f() -> u8 { 7 }";
    let one = mutant(1, source, Genre::FnValue, "7", "0");
    let text = " fn f() -> u8 { if crate::woven::on(1) { return 0; } 7 }";
    assert_eq!(woven(source, std::slice::from_ref(&one)), text);
    // One that a constant needs stays as it is.
    let needed = ["f".to_string()].into();
    assert_eq!(weave(source, &[&one], &needed).map(|woven| woven.text), Ok(source.to_string()));
    assert_eq!(replace(source, &one, &needed).as_deref(), Ok("const fn f() -> u8 { 0 }"));
    assert_eq!(replace(source, &one, &BTreeSet::new()).as_deref(), Ok(" fn f() -> u8 { 0 }"));
}

#[test]
fn a_function_may_return_another_iterator() {
    let source = "fn f(a: &S) -> impl Iterator<Item = u8> { let b = a.b; b.iter().map(g) }";
    let one = Mutant {
        returns: "-> impl Iterator<Item = u8>".into(),
        ..mutant(1, source, Genre::FnValue, "let b = a.b; b.iter().map(g)", "::std::iter::empty()")
    };
    let text = "fn f(a: &S) -> impl Iterator<Item = u8> { if crate::woven::on(1) { return \
                crate::woven::any(::std::iter::empty()); } crate::woven::any({ let b = a.b; \
                b.iter().map(g) }) }";
    assert_eq!(woven(source, &[one]), text);

    // One that returns on its way would have to box that, too.
    let source = "fn f() -> impl Iterator<Item = u8> { if c { return g(); } h() }";
    let other = Mutant {
        returns: "-> impl Iterator<Item = u8>".into(),
        ..mutant(1, source, Genre::FnValue, "if c { return g(); } h()", "::std::iter::empty()")
    };
    let woven = weave(source, &[&other], &BTreeSet::new()).unwrap();
    assert_eq!((woven.text.as_str(), woven.places.len()), (source, 0));
}

#[test]
fn constants_need_all_that_their_functions_call() {
    let mut constants = Constants::default();
    let source = "const A: u8 = f(); const fn f() -> u8 { g() } const fn g() -> u8 { 1 } \
                  const fn h() -> u8 { g() }";
    constants.read(source).unwrap();
    assert_eq!(constants.closed(), ["f".to_string(), "g".to_string()].into());
}

#[test]
fn an_arm_gets_a_guard_and_a_guard_a_choice() {
    let source = "fn f(a: u8) { match a { 1 => {} 2 if g() => {} _ => {} } }";
    let mutants = [
        mutant(1, source, Genre::MatchArm, "1 => {}", ""),
        mutant(2, source, Genre::MatchArm, "2 if g() => {}", ""),
        mutant(3, source, Genre::MatchArmGuard, "g()", "true"),
    ];
    let guards: Vec<&Mutant> = mutants.iter().collect();
    let woven = weave(source, &guards, &BTreeSet::new()).unwrap();
    let text = "fn f(a: u8) { match a { 1 if !crate::woven::on(1) => {} \
                2 if !crate::woven::on(2) && ((if crate::woven::on(3) { true } else { g() })) => {} \
                _ => {} } }";
    assert_eq!(woven.text, text);
}

#[test]
fn a_negation_and_a_field_are_left_out() {
    let source = "fn f() -> S { S { a: !x, ..b } }";
    let mutants = [mutant(1, source, Genre::StructField, "a: !x,", "")];
    let text = "fn f() -> S { (if crate::woven::on(1) { S {  ..b } } else { S { a: !x, ..b } }) }";
    assert_eq!(woven(source, &mutants), text);
    let mutants = [mutant(1, source, Genre::UnaryOperator, "!", "")];
    let text = "fn f() -> S { S { a: (if crate::woven::on(1) { x } else { !x }), ..b } }";
    assert_eq!(woven(source, &mutants), text);
}

#[test]
fn what_cannot_be_woven_is_left_as_it_is() {
    let source = "const A: u8 = 1 + 2; fn f() { if let Some(x) = y && z {} }";
    for (genre, part, other) in
        [(Genre::BinaryOperator, "+", "-"), (Genre::BinaryOperator, "&&", "||")]
    {
        let one = mutant(1, source, genre, part, other);
        let woven = weave(source, &[&one], &BTreeSet::new()).unwrap();
        assert_eq!((woven.text.as_str(), woven.places.len()), (source, 0));
        let alone = replace(source, &one, &BTreeSet::new()).unwrap();
        assert_eq!(alone, source.replacen(part, other, 1));
    }
}

#[test]
fn what_lives_has_a_reason_and_what_has_a_reason_lives() {
    let text =
        "# Why.\nx.rs: replace + with - in f — the same\nx.rs: delete ! in g — never asked\n";
    let missed = ["x.rs: delete ! in g", "x.rs: delete ! in h"].map(str::to_string).into();
    let (without, needless) = Explained::parse(text).compare(&missed);
    assert_eq!(without, ["x.rs: delete ! in h"]);
    assert_eq!(needless, ["x.rs: replace + with - in f"]);
}
