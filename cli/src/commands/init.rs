//! `init`: writes a VMFile to begin with.

use std::path::{Path, PathBuf};

use vmctl_planner::vmfile::FILE_NAME;

use crate::args::{InitArgs, Template};
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::files::Destination;
use crate::ui;

/// Runs the command.
pub(crate) fn run(ctx: &Context, args: &InitArgs) -> Result<Exit, CliError> {
    let path = ctx.options.file.clone().unwrap_or_else(|| PathBuf::from(FILE_NAME));
    Destination::of_vmfile(&path, args.force)?.write(text(args.template).as_bytes())?;
    ui::note(ctx.options.quiet, &next(&path, args.template));
    Ok(Exit::Fine)
}

fn text(template: Template) -> &'static str {
    match template {
        Template::Minimal => include_str!("../templates/minimal.kdl"),
        Template::Ci => include_str!("../templates/ci.kdl"),
        Template::Cluster => include_str!("../templates/cluster.kdl"),
    }
}

/// What was written, and what to do with it.
fn next(path: &Path, template: Template) -> String {
    let what = match template {
        Template::Minimal => "one machine, `web`",
        Template::Ci => "a machine for CI, `runner`",
        Template::Cluster => "two workers and a head",
    };
    let shown = path.display();
    let file = if path == Path::new(FILE_NAME) { String::new() } else { format!(" --file {shown}") };
    format!(
        "Wrote {shown}: {what}.\n\n\
         Give `image` a default in it, the path of a disk image with cloud-init. Then:\n\
         \x20 vmctl validate{file}   checks the file\n\
         \x20 vmctl plan{file}       shows what would be done\n\
         \x20 vmctl apply{file}      does it"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::ValueEnum;
    use vmctl_planner::vmfile::{Given, Images, LoadOptions, format, load};
    use vmctl_providers::image::{ImageError, ImageIdentity};
    use vmctl_providers::{Digest, ImageFormat};

    use super::*;

    #[derive(Debug)]
    struct AnyImage;

    impl Images for AnyImage {
        fn identify(&self, _: &Path) -> Result<ImageIdentity, ImageError> {
            let digest = Digest::of("disk");
            Ok(ImageIdentity { digest, format: ImageFormat::Qcow2, virtual_size: 2 << 30 })
        }
    }

    #[test]
    fn templates_are_valid_once_they_have_an_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(folder.path().join("disk.qcow2"), "disk").unwrap();
        for template in Template::value_variants() {
            fs::write(&path, text(*template)).unwrap();
            let load = |values: Vec<(String, String)>| {
                let given = Given { values, ..Given::default() };
                load(&path, &LoadOptions { project: None, home: None, images: &AnyImage, given })
            };
            let loaded = load(vec![("image".to_owned(), "disk.qcow2".to_owned())]).unwrap();
            assert_eq!(loaded.warnings, [], "{template:?}");
            assert!(loaded.desired.vms.values().all(|vm| vm.image.is_some()), "{template:?}");
            let report = load(Vec::new()).unwrap_err();
            let problems = report.problems();
            assert_eq!(problems.len(), 1, "{problems:#?}");
            assert!(problems[0].message.contains("`image`"), "{problems:#?}");
        }
    }

    #[test]
    fn what_templates_leave_out_is_valid_too() {
        for template in Template::value_variants() {
            // A comment of code is indented like its block; one of words ends like a sentence.
            let code = |line: &str| line.trim_start().starts_with("// ") && !line.ends_with(['.', ':']);
            let lines = text(*template).lines();
            let whole: Vec<_> = lines
                .map(|line| if code(line) { line.replacen("// ", "", 1) } else { line.to_owned() })
                .collect();
            let text = whole.join("\n").replace("(env)\"CI_COMMIT\"", "\"4711\"");
            let parsed = vmctl_planner::vmfile::parse(FILE_NAME, &text);
            assert!(parsed.is_ok(), "{text}\n{:#?}", parsed.unwrap_err().problems());
        }
    }

    #[test]
    fn templates_are_canonical() {
        for template in Template::value_variants() {
            assert_eq!(format(FILE_NAME, text(*template)).as_deref(), Ok(text(*template)));
        }
    }
}
