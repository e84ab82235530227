//! The table of `docs/reliability.md`: every invariant and every rule is in it, and every test that it names is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The sources of a kind of test.
fn sources(kind: &str) -> String {
    let tests = root().join("tests");
    let mut all = fs::read_to_string(tests.join(format!("{kind}.rs"))).unwrap_or_default();
    let mut folders = vec![tests.join(kind)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.push_str(&fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    all
}

/// Returns whether the harness runs a test of this name: as such, or as one of a suite that a macro makes tests of.
fn has_test(sources: &str, test: &str) -> bool {
    let Some((before, _)) = sources.split_once(&format!("fn {test}(")) else { return false };
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    let is_run =
        attributes.contains("#[test]") || attributes.contains("#[tokio::test") || sources.contains(&format!("{test};"));
    is_run && !attributes.contains("#[ignore")
}

#[test]
fn every_invariant_and_rule_names_tests_that_are_there() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("the page");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| **")).collect();
    let expected: BTreeSet<String> =
        (1..=11).map(|n| format!("I{n}")).chain((1..=24).map(|n| format!("R{n}"))).collect();
    let named = |row: &str| row.split("**").nth(1).unwrap_or_default().to_owned();
    let found: BTreeSet<String> = rows.iter().map(|row| named(row)).filter(|name| name.len() <= 3).collect();
    assert_eq!(found, expected);
    let mut missing = Vec::new();
    for row in rows.iter().filter(|row| expected.contains(&named(row))) {
        let tests: Vec<(&str, &str)> =
            row.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for (kind, test) in tests {
            if !has_test(&sources(kind), test) {
                missing.push(format!("{}: {kind}::{test}", named(row)));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_page_with_a_test_that_is_not_there_is_found_out() {
    assert!(!has_test(&sources("api"), "a_test_that_nobody_has_written"));
    assert!(has_test(&sources("api"), "serials_are_never_used_again"));
    for (attribute, is_run) in [("#[test]\n", true), ("", false), ("#[test]\n#[ignore]\n", false)] {
        assert_eq!(has_test(&format!("use std;\n\n{attribute}fn a() {{}}\n"), "a"), is_run);
    }
}
