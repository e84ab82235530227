//! `docs/performance.md`: prose by people, and parts between markers that are made here.

use std::{fs, path::Path};

use anyhow::{Context, ensure};

/// What the document is before there is one.
const TEMPLATE: &str = include_str!("performance.md");

/// Replaces the parts of a document, which is made if there is none. Each part is its name and its text.
pub(crate) fn write(path: &Path, parts: &[(&str, String)]) -> anyhow::Result<()> {
    let mut text = if path.exists() { fs::read_to_string(path)? } else { TEMPLATE.to_owned() };
    for (name, part) in parts {
        text = replace(&text, name, part).with_context(|| format!("cannot write into {}", path.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(text: &str, name: &str, part: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- generated: {name} -->\n"), format!("<!-- end: {name} -->"));
    let split = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    ensure!(split.is_some(), "it has no place for {name}: no line {} before one of {end}", begin.trim());
    let (before, after) = split.unwrap_or_default();
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", part.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_stays() {
        let text = "Before.\n<!-- generated: x -->\nold\n<!-- end: x -->\nAfter.\n";
        let new = replace(text, "x", "new").expect("there is a place");
        assert_eq!(new, "Before.\n<!-- generated: x -->\n\nnew\n\n<!-- end: x -->\nAfter.\n");
        assert_eq!(replace(&new, "x", "new").expect("there is a place"), new);
        assert!(replace(text, "y", "new").is_err());
    }
}
