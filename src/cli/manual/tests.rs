//! Tests that the man pages and `docs/usage.md` agree with `--help`.

use super::*;

/// The usage document. If PUSHIMG_WRITE_DOCS is set, the test rewrites its generated parts.
const USAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/usage.md");

/// A command's options as Markdown tables, one for each heading, followed by its other sections.
fn markdown(command: &Command) -> String {
    let mut text = String::new();
    let mut heading = None;
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        if heading.replace(arg.get_help_heading()) != Some(arg.get_help_heading()) {
            text +=
                &format!("\n| {} | |\n|---|---|\n", arg.get_help_heading().unwrap_or("Argument"));
        }
        let takes_value = arg.get_action().takes_values();
        let value = arg.get_value_names().filter(|_| takes_value).unwrap_or_default().join(" ");
        let names: Vec<String> = arg
            .get_short()
            .map(|short| format!("`-{short}`"))
            .into_iter()
            .chain(arg.get_long().map(|long| format!("`{}`", format!("--{long} {value}").trim())))
            .collect();
        let names = if names.is_empty() { format!("`{value}`") } else { names.join(", ") };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let mut notes = String::new();
        let values: Vec<_> = arg.get_possible_values();
        if !values.is_empty() && !arg.is_hide_possible_values_set() && !value.is_empty() {
            let values: Vec<_> =
                values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            notes += &format!("; one of {}", values.join(", "));
        }
        let defaults = arg.get_default_values();
        if let [default] = defaults
            && !value.is_empty()
        {
            notes += &format!("; default `{}`", default.display());
        }
        text += &format!("| {names} | {}{notes} |\n", help.replace('|', "\\|"));
    }
    for section in sections(command.get_name()) {
        text += &format!("\n{}:\n\n", section.title);
        match section.body {
            Body::Commands(commands) => {
                for command in commands {
                    text += &format!("    {command}\n");
                }
            }
            Body::Paragraph(paragraph) => text += &format!("{paragraph}\n"),
            Body::Table(rows) => {
                text += "| | |\n|---|---|\n";
                for (name, meaning) in rows {
                    text += &format!("| `{}` | {meaning} |\n", name.replace(", ", "`, `"));
                }
            }
        }
    }
    text
}

#[test]
fn the_usage_document_says_what_the_help_says() {
    let document = fs_err::read_to_string(USAGE).unwrap();
    let mut command = Args::command();
    command.build();
    let mut wanted = document.clone();
    for part in command.get_subcommands().chain([&command]) {
        let name = part.get_bin_name().unwrap_or("pushimg");
        let (begin, end) = (format!("<!-- help of {name} -->\n"), "<!-- end of help -->");
        let (before, rest) =
            wanted.split_once(&begin).unwrap_or_else(|| panic!("docs/usage.md: no {begin}"));
        let (_, after) = rest.split_once(end).expect("an end");
        wanted = format!("{before}{begin}{}\n{end}{after}", markdown(part));
    }
    if std::env::var_os("PUSHIMG_WRITE_DOCS").is_some() {
        fs_err::write(USAGE, &wanted).unwrap();
    } else {
        let advice = "docs/usage.md differs from --help: run PUSHIMG_WRITE_DOCS=1 cargo test --lib cli::manual";
        assert!(document == wanted, "{advice}");
    }
}

#[test]
fn every_command_has_a_page_that_man_shows_without_warnings() {
    let folder = tempfile::tempdir().unwrap();
    write_man_pages(folder.path()).unwrap();
    let mut pages = 0;
    for page in fs_err::read_dir(folder.path()).unwrap() {
        let path = page.unwrap().path();
        let shown = std::process::Command::new("man")
            .args(["--warnings", "--local-file"])
            .arg(&path)
            .envs([("LC_ALL", "C.UTF-8"), ("MANWIDTH", "100"), ("MANROFFOPT", "-ww")])
            .output()
            .expect("man, from the package man-db");
        let warnings = String::from_utf8_lossy(&shown.stderr);
        assert!(shown.status.success() && warnings.is_empty(), "{}: {warnings}", path.display());
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXAMPLES"] {
            assert!(text.contains(section), "{}: {section}\n{text}", path.display());
        }
        pages += 1;
    }
    assert_eq!(pages, 1 + Args::command().get_subcommands().count());
    let page = fs_err::read_to_string(folder.path().join("pushimg.1")).unwrap();
    for text in ["reuse\\-from", "EXIT CODES", "interrupted", "REGISTRY_AUTH_FILE"] {
        assert!(page.contains(text), "{text}: {page}");
    }
}
