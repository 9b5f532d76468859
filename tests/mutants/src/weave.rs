//! All mutants of a file in one text, each asleep until its number is called.
//!
//! `a + b` becomes `(if crate::woven::on(7) { a - b } else { a + b })`, a function that may return
//! at once begins with `if crate::woven::on(8) { return … }` (what is `impl Iterator` is boxed), an arm
//! that may be gone gets a guard. One build then serves every mutant. What cannot be woven (constants, and what the compiler
//! refuses) is left to a build of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::list::{Genre, Lines, Mutant};

/// A text with mutants in it.
#[derive(Debug, Default)]
pub struct Woven {
    /// The text.
    pub text: String,
    /// Where the code of each mutant stands.
    pub places: Vec<(Range<usize>, u32)>,
}

/// Something put around a part of the text.
struct Edit {
    range: Range<usize>,
    before: String,
    /// Where mutants' code stands in `before`.
    places: Vec<(Range<usize>, u32)>,
    after: &'static str,
    /// Whether the part itself is left out.
    cut: bool,
}

/// Names of `const fn`s that constants need.
#[derive(Debug, Default)]
pub struct Constants {
    /// Called in constants.
    called: BTreeSet<String>,
    /// What each `const fn` calls.
    calls: BTreeMap<String, BTreeSet<String>>,
    constant: usize,
    inside: Option<String>,
}

impl Constants {
    /// Looks through one more source.
    ///
    /// # Errors
    /// It is no Rust.
    pub fn read(&mut self, source: &str) -> Result<(), String> {
        let file = syn::parse_file(source).map_err(|error| error.to_string())?;
        self.visit_file(&file);
        Ok(())
    }

    /// All that have to stay `const`.
    pub fn closed(mut self) -> BTreeSet<String> {
        loop {
            let more: BTreeSet<String> = self
                .called
                .iter()
                .filter_map(|name| self.calls.get(name))
                .flatten()
                .filter(|name| !self.called.contains(*name))
                .cloned()
                .collect();
            if more.is_empty() {
                return self.called;
            }
            self.called.extend(more);
        }
    }

    fn name(&mut self, name: &syn::Ident) {
        if self.constant > 0 {
            self.called.insert(name.to_string());
        } else if let Some(inside) = &self.inside {
            self.calls.entry(inside.clone()).or_default().insert(name.to_string());
        }
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let outer = self.inside.take();
        self.inside = signature.constness.as_ref().map(|_| signature.ident.to_string());
        self.visit_block(block);
        self.inside = outer;
    }
}

impl<'ast> Visit<'ast> for Constants {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant += 1;
        visit::visit_item_const(self, item);
        self.constant -= 1;
    }
    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant += 1;
        visit::visit_impl_item_const(self, item);
        self.constant -= 1;
    }
    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant += 1;
        visit::visit_item_static(self, item);
        self.constant -= 1;
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
    }
    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.name(&call.method);
        visit::visit_expr_method_call(self, call);
    }
    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if let Some(last) = path.path.segments.last() {
            self.name(&last.ident);
        }
        visit::visit_expr_path(self, path);
    }
}

struct Weaver<'a> {
    source: &'a str,
    lines: Lines<'a>,
    at: BTreeMap<usize, Vec<&'a Mutant>>,
    constants: &'a BTreeSet<String>,
    edits: Vec<Edit>,
    /// Depth of what is computed by the compiler.
    fixed: usize,
}

/// Weaves all `mutants`, which are all of one file, into its source.
///
/// # Errors
/// It is no Rust.
pub fn weave(
    source: &str,
    mutants: &[&Mutant],
    constants: &BTreeSet<String>,
) -> Result<Woven, String> {
    let mut weaver = Weaver::new(source, mutants, constants);
    let file = syn::parse_file(source).map_err(|error| error.to_string())?;
    weaver.visit_file(&file);
    Ok(render(source, weaver.edits))
}

/// The source with one mutant alone, and no way to turn it off.
///
/// # Errors
/// It is no Rust.
pub fn replace(
    source: &str,
    mutant: &Mutant,
    constants: &BTreeSet<String>,
) -> Result<String, String> {
    let mut weaver = Weaver::new(source, &[], constants);
    let file = syn::parse_file(source).map_err(|error| error.to_string())?;
    weaver.visit_file(&file);
    weaver.edits.retain(|edit| {
        edit.range.end <= mutant.range.start || edit.range.start >= mutant.range.end
    });
    weaver.edits.push(Edit {
        range: mutant.range.clone(),
        before: mutant.replacement.clone(),
        places: Vec::new(),
        after: "",
        cut: true,
    });
    Ok(render(source, weaver.edits).text)
}

impl<'a> Weaver<'a> {
    fn new(source: &'a str, mutants: &[&'a Mutant], constants: &'a BTreeSet<String>) -> Self {
        let mut at: BTreeMap<usize, Vec<&Mutant>> = BTreeMap::new();
        for mutant in mutants {
            at.entry(mutant.range.start).or_default().push(mutant);
        }
        let lines = Lines::new(source);
        Self { source, lines, at, constants, edits: Vec::new(), fixed: 0 }
    }

    fn range(&self, span: Span) -> Range<usize> {
        let (start, end) = (span.start(), span.end());
        self.lines.byte(start.line, start.column)..self.lines.byte(end.line, end.column)
    }

    fn mutants(&self, at: usize, genre: Genre) -> Vec<&'a Mutant> {
        let here = self.at.get(&at).into_iter().flatten();
        here.filter(|mutant| mutant.genre == genre && self.fixed == 0).copied().collect()
    }

    /// The text of `range` with the part of the mutant replaced.
    fn changed(&self, range: &Range<usize>, mutant: &Mutant) -> String {
        let (before, after) = (range.start..mutant.range.start, mutant.range.end..range.end);
        format!("{}{}{}", &self.source[before], mutant.replacement, &self.source[after])
    }

    /// Makes an expression a choice between it and what the mutants make of it.
    fn choose(&mut self, range: Range<usize>, mutants: &[&Mutant]) {
        if mutants.is_empty() {
            return;
        }
        let (mut before, mut places) = ("(".to_string(), Vec::new());
        for mutant in mutants {
            before += &format!("if crate::woven::on({}) {{ ", mutant.id);
            let start = before.len();
            before += &self.changed(&range, mutant);
            places.push((start..before.len(), mutant.id));
            before += " } else ";
        }
        before += "{ ";
        self.edits.push(Edit { range, before, places, after: " })", cut: false });
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let kept =
            signature.constness.is_some() && self.constants.contains(&signature.ident.to_string());
        if let Some(constness) = signature.constness.as_ref().filter(|_| !kept) {
            self.edits.push(Edit {
                range: self.range(constness.span()),
                before: String::new(),
                places: Vec::new(),
                after: "",
                cut: true,
            });
        }
        if kept {
            self.fixed += 1;
        }
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            self.returns(self.range(first.span()).start..self.range(last.span()).end);
        }
        self.visit_block(block);
        if kept {
            self.fixed -= 1;
        }
    }

    /// A function of this body may return at once.
    fn returns(&mut self, body: Range<usize>) {
        let (mut before, mut places, mut boxed) = (String::new(), Vec::new(), false);
        for mutant in self.mutants(body.start, Genre::FnValue) {
            let is_boxed =
                is_iterator(&mutant.returns) && !self.source[body.clone()].contains("return");
            if mutant.returns.contains("impl ") && !is_boxed {
                continue; // all that it returns must be of one type
            }
            before += &format!("if crate::woven::on({}) {{ return ", mutant.id);
            let start = before.len();
            before += &match is_boxed {
                true => format!("crate::woven::any({})", mutant.replacement),
                false => mutant.replacement.clone(),
            };
            places.push((start..before.len(), mutant.id));
            before += "; } ";
            boxed |= is_boxed;
        }
        let (range, after) = match boxed {
            true => (body, " })"),
            false => (body.start..body.start, ""),
        };
        before += if boxed { "crate::woven::any({ " } else { "" };
        self.edits.push(Edit { range, before, places, after, cut: false });
    }

    fn constant(&mut self, expression: &syn::Expr) {
        self.fixed += 1;
        self.visit_expr(expression);
        self.fixed -= 1;
    }
}

/// Whether a function that returns this may return any iterator, if it is boxed.
pub fn is_iterator(returns: &str) -> bool {
    returns.trim_start_matches("->").trim_start().starts_with("impl Iterator<")
}

/// Whether an expression is a condition that binds names, which no parenthesis may enclose.
fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Weaver<'_> {
    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if !binds(&binary.left) && !binds(&binary.right) {
            let mutants = self.mutants(self.range(binary.op.span()).start, Genre::BinaryOperator);
            self.choose(self.range(binary.span()), &mutants);
        }
        visit::visit_expr_binary(self, binary);
    }
    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let mutants = self.mutants(self.range(unary.op.span()).start, Genre::UnaryOperator);
        self.choose(self.range(unary.span()), &mutants);
        visit::visit_expr_unary(self, unary);
    }
    fn visit_expr_struct(&mut self, made: &'ast syn::ExprStruct) {
        let fields = made.fields.iter().map(|field| self.range(field.span()).start);
        let mutants: Vec<&Mutant> =
            fields.flat_map(|at| self.mutants(at, Genre::StructField)).collect();
        self.choose(self.range(made.span()), &mutants);
        visit::visit_expr_struct(self, made);
    }
    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let pattern = self.range(arm.pat.span());
        let guard = arm.guard.as_ref().map(|(_, guard)| self.range(guard.span()));
        for mutant in self.mutants(pattern.start, Genre::MatchArm) {
            let (range, before, after) = match &guard {
                Some(guard) => {
                    (guard.clone(), format!("!crate::woven::on({}) && (", mutant.id), ")")
                }
                None => {
                    let end = pattern.end..pattern.end;
                    (end, format!(" if !crate::woven::on({})", mutant.id), "")
                }
            };
            let places = vec![(0..before.len(), mutant.id)];
            self.edits.push(Edit { range, before, places, after, cut: false });
        }
        if let Some(guard) = guard {
            let mutants = self.mutants(guard.start, Genre::MatchArmGuard);
            self.choose(guard, &mutants);
        }
        visit::visit_arm(self, arm);
    }
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
    }
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(&item.expr);
    }
    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(&item.expr);
    }
    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(&item.expr);
    }
    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.constant(&array.len);
    }
    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
        self.constant(&repeat.len);
    }
    fn visit_pat(&mut self, pattern: &'ast syn::Pat) {
        self.fixed += 1;
        visit::visit_pat(self, pattern);
        self.fixed -= 1;
    }
    fn visit_variant(&mut self, _: &'ast syn::Variant) {}
}

/// Applies edits: of two around the same text, the earlier is the outer one.
fn render(source: &str, edits: Vec<Edit>) -> Woven {
    let mut order: Vec<&Edit> = edits.iter().collect();
    order.sort_by_key(|edit| {
        let whole = edit.range.end != edit.range.start;
        (edit.range.start, whole, std::cmp::Reverse(edit.range.end))
    });
    let (mut woven, mut open, mut at) = (Woven::default(), Vec::<&Edit>::new(), 0);
    for edit in order {
        close(source, &mut woven, &mut open, &mut at, edit.range.start);
        woven.text += &source[at..edit.range.start];
        at = edit.range.start;
        let base = woven.text.len();
        woven.text += &edit.before;
        let moved = |place: &Range<usize>| base + place.start..base + place.end;
        woven.places.extend(edit.places.iter().map(|(place, id)| (moved(place), *id)));
        if edit.cut {
            at = edit.range.end;
        } else if edit.range.is_empty() {
            woven.text += edit.after;
        } else {
            open.push(edit);
        }
    }
    close(source, &mut woven, &mut open, &mut at, source.len());
    woven.text += &source[at..];
    woven
}

/// Ends all that end at or before `until`.
fn close(source: &str, woven: &mut Woven, open: &mut Vec<&Edit>, at: &mut usize, until: usize) {
    while let Some(edit) = open.pop_if(|edit| edit.range.end <= until) {
        woven.text += &source[*at..edit.range.end];
        *at = edit.range.end;
        woven.text += edit.after;
    }
}
