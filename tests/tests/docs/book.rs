//! The documentation as web pages.

use std::path::Path;

use mdbook_driver::MDBook;
use mdbook_driver::book::{BookItem, Chapter};
use mdbook_driver::config::Config;

use vmctl_tests::markdown::Page;
use vmctl_tests::surroundings::repository;

/// Where files of the repository are read that are no part of the book.
const ELSEWHERE: &str = "https://github.com/vmctl/vmctl/blob/main";

/// Where `make book` puts it.
const PLACE: &str = "target/book";

/// Makes the book in the folder `to`, which is made if it is not there, and holds nothing else afterwards.
pub(crate) fn build(to: &Path) -> Result<(), String> {
    let docs = repository().join("docs");
    let failed = |error| format!("cannot make a book of `{}`: {error:#}", docs.display());
    let mut config = Config::from_disk(docs.join("book.toml")).map_err(failed)?;
    config.build.build_dir = std::path::absolute(to).map_err(|error| failed(error.into()))?;
    let mut book = MDBook::load_with_config(&docs, config).map_err(failed)?;
    book.book.for_each_mut(|item| {
        if let BookItem::Chapter(chapter) = item {
            lead_outside(chapter);
        }
    });
    book.build().map_err(failed)
}

/// Lets links that leave the documentation lead to the repository, and those to a folder's page to what the book calls it.
fn lead_outside(chapter: &mut Chapter) {
    let Some(path) = &chapter.source_path else { return };
    let page = Page { name: format!("docs/{}", path.display()), text: chapter.content.clone() };
    for link in page.links() {
        let Some((target, _)) = page.target(&link) else { continue };
        let inside = link.strip_suffix("README.md").map(|folder| format!("{folder}index.md"));
        let there = match inside {
            _ if !target.starts_with("docs") => format!("{ELSEWHERE}/{}", target.display()),
            Some(page) => page,
            None => continue,
        };
        chapter.content = chapter.content.replace(&format!("]({link})"), &format!("]({there})"));
    }
}

#[test]
#[ignore = "writes the book"]
fn write_the_book() {
    build(&repository().join(PLACE)).unwrap();
}
