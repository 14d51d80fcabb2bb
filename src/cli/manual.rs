//! Makes man pages and shell completions from the same definitions as `--help`.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::args::Args;
use super::help::{Body, Section, sections};

/// The completion script for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut Args::command(), "pushimg", &mut script);
    match (shell, String::from_utf8(script)) {
        (Shell::Fish, Ok(script)) => fish(&script).into_bytes(),
        (_, Ok(script)) => script.into_bytes(),
        (_, Err(script)) => script.into_bytes(),
    }
}

/// Corrects clap's script for fish. It takes the image for a subcommand, and then completes no
/// options and no files after it. A subcommand of `pushimg` is always the first word, so simple
/// conditions are enough.
fn fish(script: &str) -> String {
    let definitions = script.lines().filter(|line| !line.starts_with('#'));
    let definitions = definitions.skip_while(|line| !line.starts_with("complete "));
    let names: Vec<String> =
        Args::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let conditions = format!(
        "function __fish_pushimg_first_word\n    test (count (commandline -opc)) -eq 1\nend\n\n\
         function __fish_pushimg_using_subcommand\n    set -l words (commandline -opc)\n    \
         contains -- \"$words[2]\" $argv\nend\n\n\
         function __fish_pushimg_needs_command\n    \
         not __fish_pushimg_using_subcommand {}\nend\n\n",
        names.join(" ")
    );
    let of_commands = "-n \"__fish_pushimg_needs_command\" -f -a \"";
    let definitions = definitions.map(|line| {
        format!("{}\n", line.replace(of_commands, "-n \"__fish_pushimg_first_word\" -a \""))
    });
    conditions + &definitions.collect::<String>()
}

/// Writes `pushimg.1` and a page for each subcommand into a folder. The folder is created if it is
/// missing.
pub fn write_man_pages(folder: &Path) -> io::Result<()> {
    fs_err::create_dir_all(folder)?;
    let mut command = Args::command();
    command.build();
    for page in command.get_subcommands().chain([&command]) {
        let name = page.get_display_name().unwrap_or("pushimg");
        fs_err::write(folder.join(format!("{name}.1")), man_page(page)?)?;
    }
    Ok(())
}

fn man_page(command: &Command) -> io::Result<Vec<u8>> {
    // The version is in the page's footer. There is no date, so that the page is reproducible.
    let man = Man::new(command.clone()).date("").manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    for section in sections(command.get_name()) {
        render_section(section).to_writer(&mut page)?;
    }
    Ok(page)
}

fn render_section(section: &Section) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [section.title.to_uppercase().as_str()]);
    match section.body {
        Body::Commands(commands) => {
            roff.control("nf", []);
            for command in commands {
                roff.text([roman(*command)]);
            }
            roff.control("fi", []);
        }
        Body::Paragraph(text) => {
            roff.text([roman(text)]);
        }
        Body::Table(rows) => {
            for (name, meaning) in rows {
                roff.control("TP", []);
                roff.text([bold(*name)]);
                roff.text([roman(*meaning)]);
            }
        }
    }
    roff
}

#[cfg(test)]
mod tests;
