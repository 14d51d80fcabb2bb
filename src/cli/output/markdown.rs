//! The text for `--summary`: the result of a push in Markdown, for the summary page of a CI job.

use std::error::Error;

use super::changes;
use super::summary::layer_counts;
use super::text::{escape, size, time};
use crate::report::Report;

/// The section for an image that was pushed.
pub fn pushed(report: &Report) -> String {
    let verb = if report.dry_run { "Would push" } else { "Pushed" };
    let own = format!(":{}", report.tags.first().map_or("", String::as_str));
    let reference = report.reference.strip_suffix(&own).unwrap_or(&report.reference);
    let mut rows = vec![("digest", code(report.digest.as_str()))];
    if !report.tags.is_empty() {
        let tags: Vec<_> = report.tags.iter().map(|tag| code(tag)).collect();
        rows.push(("tags", tags.join(", ")));
    }
    let mounted = match report.layers_mounted() {
        0 => String::new(),
        count => format!(", {count} mounted"),
    };
    let (uploaded, sent) =
        if report.dry_run { ("to upload", "to send") } else { ("uploaded", "sent") };
    rows.push(("layers", format!("{} {uploaded}{mounted}", layer_counts(report))));
    let (new, reused) = (size(report.bytes_sent), size(report.bytes_reused));
    rows.push(("bytes", format!("{new} {sent}, {reused} already there")));
    if let Some(changed) = &report.changes {
        let line = changes::line(changed, changes::LOG_COLUMNS).replace('|', "\\|");
        rows.push(("changed", line));
    }
    rows.push(("time", time(report.seconds)));
    let rows: String = rows.iter().map(|(name, text)| format!("| {name} | {text} |\n")).collect();
    format!("### {verb} {}\n\n| | |\n|---|---|\n{rows}\n", code(reference))
}

/// The section for an image that failed. `name` is its destination, if known.
pub fn failed(name: Option<&str>, error: &dyn Error) -> String {
    let name = name.map(|name| format!(": {}", code(name))).unwrap_or_default();
    let text: String =
        error.to_string().lines().map(|line| format!("    {}\n", escape(line))).collect();
    format!("### Push failed{name}\n\n{text}\n")
}

/// Text as inline code that is also valid in a table.
fn code(text: &str) -> String {
    format!("`{}`", escape(text).replace('`', "'").replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer_report, report};
    use super::*;
    use crate::report::{Known, Outcome};

    #[test]
    fn a_push_is_a_heading_and_a_table() {
        let reused = layer_report("glibc", 10, Outcome::Reused { why: Known::Cache });
        let mut report = report(vec![reused, layer_report("app", 5, Outcome::Uploaded)]);
        report.tags.push("v2".into());
        let digest = report.digest.clone();
        assert_eq!(
            pushed(&report),
            format!(
                "### Pushed `registry.fly.io/app`\n\n| | |\n|---|---|\n| digest | `{digest}` |\n\
                 | tags | `latest`, `v2` |\n| layers | 1 of 2 layers uploaded |\n\
                 | bytes | 1.2 MB sent, 418 MB already there |\n| time | 0.9 s |\n\n"
            )
        );
        report.dry_run = true;
        let planned = pushed(&report);
        assert!(planned.starts_with("### Would push `registry.fly.io/app`\n"));
        assert!(planned.contains("| 1 of 2 layers to upload |\n| bytes | 1.2 MB to send, 418 MB"));
    }

    #[test]
    fn text_from_elsewhere_stays_text() {
        let error = crate::Error::Failed("no | such\n### image\u{1b}".into());
        assert_eq!(
            failed(Some("r.io/a`b|c"), &error),
            "### Push failed: `r.io/a'b\\|c`\n\n    no | such\n    ### image\\u{1b}\n\n"
        );
    }
}
