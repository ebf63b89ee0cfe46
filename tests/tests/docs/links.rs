//! Links, anchors and pictures of all pages, and of the book that is made of `docs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vmctl_tests::markdown::Page;
use vmctl_tests::surroundings;

use crate::book;

const SUMMARY: &str = "docs/SUMMARY.md";

#[test]
fn every_link_leads_to_something() {
    let pages: BTreeMap<_, _> =
        Page::all().into_iter().map(|page| (PathBuf::from(&page.name), page)).collect();
    let mut broken = Vec::new();
    for page in pages.values() {
        for link in page.links() {
            let Some((path, anchor)) = page.target(&link) else { continue };
            let is_there = surroundings::repository().join(&path).exists();
            let has_anchor = match (anchor, pages.get(&path)) {
                (Some(anchor), Some(target)) => target.anchors().contains(&anchor),
                (Some(_), None) => false,
                (None, _) => true,
            };
            if !is_there || !has_anchor {
                broken.push(format!("{}: {link}", page.name));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn every_page_of_docs_is_in_the_summary() {
    let summary = Page::named(SUMMARY);
    let listed: BTreeSet<_> =
        summary.links().iter().filter_map(|link| summary.target(link)).map(|(path, _)| path).collect();
    let pages = Page::all().into_iter().map(|page| page.name);
    let missing: Vec<_> = pages
        .filter(|name| name.starts_with("docs/") && name != SUMMARY && !listed.contains(Path::new(name)))
        .collect();
    assert!(missing.is_empty(), "add a line to docs/SUMMARY.md for each of {missing:?}");
}

/// The values of the attribute `name` in a page of HTML.
fn values<'h>(html: &'h str, name: &str) -> Vec<&'h str> {
    let begin = format!(" {name}=\"");
    let rest = html.split(begin.as_str()).skip(1);
    rest.filter_map(|rest| rest.split_once('"')).map(|(value, _)| value).collect()
}

/// Every page of HTML below `folder`, with its text.
fn pages(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.canonicalize().unwrap(), text);
            }
        }
    }
    found
}

#[test]
fn book_is_made_and_its_links_lead_to_something() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("book");
    book::build(&root).unwrap();
    let pages = pages(&root);
    assert!(root.join("index.html").is_file() && root.join("print.html").is_file());
    let chapters = Page::all().into_iter().filter(|page| page.name.starts_with("docs/"));
    assert!(pages.len() >= chapters.count(), "{:#?}", pages.keys());
    let ids: BTreeMap<_, BTreeSet<_>> =
        pages.iter().map(|(path, text)| (path, values(text, "id").into_iter().collect())).collect();
    let mut broken = Vec::new();
    for (path, text) in &pages {
        // The page of errors is shown under other addresses, from which its links are right.
        if path.ends_with("404.html") {
            continue;
        }
        let links = values(text, "href").into_iter().chain(values(text, "src"));
        for link in links.filter(|link| !link.contains("://") && !link.starts_with("data:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let found = target.canonicalize().is_ok_and(|target| {
                anchor.is_empty() || ids.get(&target).is_some_and(|ids| ids.contains(anchor))
            });
            if !found {
                broken.push(format!("{}: {link}", path.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "links in the book that lead nowhere: {broken:#?}");
}
