//! One Rust file against docs/style.md: its head, its length, its functions and structs, no `unwrap`.
//!
//! The file is parsed, so a string that looks like code is none. Tests are measured by function only.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Finding;

const HEAD_LINES: std::ops::RangeInclusive<usize> = 2..=8;
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
const STRUCT_FIELDS: usize = 12;
const PARAMETERS: usize = 5;

/// Checks one file.
pub(super) fn check(path: &Path, text: &str) -> Vec<Finding> {
    let file = match syn::parse_file(text) {
        Ok(file) => file,
        Err(error) => {
            return vec![Finding::new(path, error.span().start().line, format!("does not parse: {error}"))];
        }
    };
    let mut findings = Vec::new();
    let head = text.lines().take_while(|line| line.starts_with("//!")).count();
    if !HEAD_LINES.contains(&head) {
        findings.push(Finding::new(
            path,
            1,
            format!("opens with {head} lines of `//!`, and 2 to 8 are wanted: what it is, what it must never do, who calls it"),
        ));
    }
    let mut look = Look { path, text, findings, test_lines: 0, in_test: is_test_path(path) };
    look.visit_file(&file);
    let lines = if look.in_test { 0 } else { text.lines().count() - look.test_lines };
    if lines > FILE_LINES {
        look.find(
            FILE_LINES,
            format!("{lines} lines outside tests, and the limit is {FILE_LINES}: split it by meaning"),
        );
    }
    look.findings
}

/// Integration tests of a crate: `x/tests/y.rs`. The library of the package `tests` is a program like any.
fn is_test_path(path: &Path) -> bool {
    path.components().skip(1).any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs")
}

struct Look<'a> {
    path: &'a Path,
    text: &'a str,
    findings: Vec<Finding>,
    test_lines: usize,
    in_test: bool,
}

impl Look<'_> {
    fn find(&mut self, line: usize, what: impl Into<String>) {
        self.findings.push(Finding::new(self.path, line, what));
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let start = signature.span().start().line;
        let end = block.span().end().line;
        let lines = code_lines(self.text.lines().skip(start - 1).take(end + 1 - start));
        if lines > FUNCTION_LINES {
            self.find(
                start,
                format!("`{}` has {lines} lines, and the limit is {FUNCTION_LINES}", signature.ident),
            );
        }
        let parameters = signature.inputs.len();
        if parameters > PARAMETERS {
            self.find(
                start,
                format!("`{}` has {parameters} parameters, and the limit is {PARAMETERS}", signature.ident),
            );
        }
    }

    /// `.unwrap()` among the tokens of a macro, which are not parsed.
    fn unwraps(&mut self, tokens: TokenStream) {
        let mut after_dot = false;
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.unwraps(group.stream()),
                TokenTree::Ident(ident) if after_dot && ident == "unwrap" => {
                    self.find_unwrap(ident.span().start().line)
                }
                TokenTree::Punct(punct) => {
                    after_dot = punct.as_char() == '.';
                    continue;
                }
                TokenTree::Ident(_) | TokenTree::Literal(_) => {}
            }
            after_dot = false;
        }
    }

    fn find_unwrap(&mut self, line: usize) {
        if !self.in_test {
            self.find(line, "`unwrap` outside tests: return the error, or `expect` with the invariant");
        }
    }

    /// Walks what belongs to a test: its lines do not count, its `unwrap` is fine.
    fn within_test(&mut self, lines: usize, walk: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.in_test, true);
        if !outer {
            self.test_lines += lines;
        }
        walk(self);
        self.in_test = outer;
    }
}

impl<'ast> Visit<'ast> for Look<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            let lines = lines_of(item);
            return self.within_test(lines, |look| visit::visit_item_mod(look, item));
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        if is_for_tests(&item.attrs) {
            let lines = lines_of(item);
            return self.within_test(lines, |look| visit::visit_item_fn(look, item));
        }
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let fields = item.fields.len();
        if fields > STRUCT_FIELDS {
            let line = item.ident.span().start().line;
            self.find(
                line,
                format!("`{}` has {fields} fields, and the limit is {STRUCT_FIELDS}", item.ident),
            );
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && call.args.is_empty() {
            self.find_unwrap(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.unwraps(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}

/// The lines but for those inside a raw string: the text that a golden test expects is no code.
fn code_lines<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let mut in_text = false;
    let is_code = |line: &&str| {
        let was_text = in_text;
        in_text = if was_text { !line.contains("\"#") } else { line.ends_with("r#\"") };
        !was_text
    };
    lines.filter(is_code).count()
}

fn lines_of(item: &impl Spanned) -> usize {
    item.span().end().line + 1 - item.span().start().line
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]` and `#[cfg(all(test, ..))]`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        syn::Meta::List(list) => {
            let last = list.path.segments.last();
            last.is_some_and(|last| last.ident == "test")
                || (list.path.is_ident("cfg") && names_test(list.tokens.clone()))
        }
        syn::Meta::NameValue(_) => false,
    })
}

fn names_test(tokens: TokenStream) -> bool {
    let mut negated = false;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) if ident == "test" => return true,
            TokenTree::Ident(ident) => negated = ident == "not",
            TokenTree::Group(group) if !negated && names_test(group.stream()) => return true,
            TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! What it is.\n//! Who calls it.\n";

    fn found(path: &str, code: &str) -> Vec<String> {
        check(Path::new(path), &format!("{HEAD}{code}")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tidy_file_has_no_finding() {
        assert_eq!(found("a/src/x.rs", "fn f(a: u8) -> u8 {\n    a\n}\n"), [""; 0]);
    }

    #[test]
    fn a_head_that_is_missing_short_or_long_is_found() {
        for head in [0, 1, 9] {
            let text = format!("{}fn f() {{}}\n", "//! x\n".repeat(head));
            assert_eq!(check(Path::new("a.rs"), &text).len(), 1, "{head} lines");
        }
        assert_eq!(check(Path::new("a.rs"), &"//! x\n".repeat(8)), []);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let long = "const X: u8 = 0;\n".repeat(499);
        assert_eq!(
            found("a/src/x.rs", &long),
            ["a/src/x.rs:500: 501 lines outside tests, and the limit is 500: split it by meaning"]
        );
        let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(found("a/src/x.rs", &tests), [""; 0]);
        let feature = format!("#[cfg(not(test))]\nmod tests {{\n{long}}}\n");
        assert_eq!(found("a/src/x.rs", &feature).len(), 1);
    }

    #[test]
    fn a_long_function_is_found_also_as_a_method() {
        let body = "    let _ = 1;\n".repeat(69);
        assert_eq!(
            found("a/src/x.rs", &format!("fn f() {{\n{body}}}\n")),
            ["a/src/x.rs:3: `f` has 71 lines, and the limit is 70"]
        );
        assert_eq!(found("a/src/x.rs", &format!("struct S;\nimpl S {{\nfn f() {{\n{body}}}\n}}\n")).len(), 1);
        assert_eq!(found("a/tests/x.rs", &format!("#[test]\nfn f() {{\n{body}}}\n")).len(), 1);
    }

    #[test]
    fn the_text_that_a_golden_test_expects_is_no_code() {
        let text = "line\n".repeat(80);
        let golden = format!("#[test]\nfn f() {{\n    check(r#\"\n{text}\"#);\n}}\n");
        assert_eq!(found("a/tests/x.rs", &golden), [""; 0]);
    }

    #[test]
    fn too_many_parameters_and_fields_are_found() {
        assert_eq!(found("a/src/x.rs", "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8) {}\n").len(), 1);
        let fields: String = (0..13).map(|n| format!("f{n}: u8,")).collect();
        assert_eq!(found("a/src/x.rs", &format!("struct S {{ {fields} }}\n")).len(), 1);
    }

    #[test]
    fn unwrap_is_found_outside_tests_also_within_macros() {
        assert_eq!(found("a/src/x.rs", "fn f() {\n    g().unwrap();\n}\n").len(), 1);
        assert_eq!(found("a/src/x.rs", "fn f() {\n    vec![g().unwrap()];\n}\n").len(), 1);
        assert_eq!(found("a/src/x.rs", "fn f() {\n    g().unwrap_or(1); // x.unwrap()\n}\n"), [""; 0]);
        assert_eq!(
            found("a/src/x.rs", "#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\n"),
            [""; 0]
        );
        assert_eq!(found("a/src/x.rs", "#[test]\nfn f() { g().unwrap(); }\n"), [""; 0]);
        assert_eq!(found("a/tests/x.rs", "fn f() { g().unwrap(); }\n"), [""; 0]);
        assert_eq!(found("tests/src/x.rs", "fn f() { g().unwrap(); }\n").len(), 1);
    }

    #[test]
    fn a_file_that_does_not_parse_is_found() {
        assert_eq!(found("a/src/x.rs", "fn f( {\n").len(), 1);
    }
}
