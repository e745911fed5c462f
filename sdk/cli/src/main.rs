//! `ssl-edge`: from a folder of images to a verdict, on the command line.
//!
//! Results go to stdout, as JSON with `--json`; progress and messages go to stderr.
//! The exit status is 0 for success, 1 for a failure and 2 for wrong usage.

mod commands;
mod data;
mod heat;
mod memory;
mod output;
mod progress;
mod report;
mod teaching;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};
use commands::Command;
use output::Format;
use std::process::ExitCode;

/// Self-supervised vision from unlabelled images to a decision.
#[derive(Parser)]
#[command(name = "ssl-edge", version, arg_required_else_help = true)]
struct Cli {
    /// Print results as JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    memory::keep_freed_memory();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let format = if cli.json {
        Format::Json
    } else {
        Format::Human
    };
    match cli.command.run(format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(report::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Prints help, version or what is wrong with the usage; a command that does not exist gets the list of those that do.
fn usage(error: &clap::Error) -> ExitCode {
    let is_mistake = error.use_stderr();
    // A reader that went away does not change the outcome.
    let _ = error.print();
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidSubcommand)
    {
        output::note(format_args!(
            "\n`{wrong}` is no command here; the commands are: {}",
            valid_commands().join(", ")
        ));
    }
    ExitCode::from(if is_mistake { 2 } else { 0 })
}

/// All commands that can be run, nested ones with their parent's name.
fn valid_commands() -> Vec<String> {
    let mut names = Vec::new();
    for command in Cli::command().get_subcommands() {
        add_names(command, String::new(), &mut names);
    }
    names
}

fn add_names(command: &clap::Command, before: String, names: &mut Vec<String>) {
    let name = before + command.get_name();
    if !command.has_subcommands() {
        names.push(name);
        return;
    }
    for inner in command.get_subcommands() {
        add_names(inner, format!("{name} "), names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_listed() {
        let names = valid_commands();
        for name in [
            "quickstart",
            "pretrain",
            "eval knn",
            "eval fewshot",
            "eval anomaly",
            "eval openset",
            "job edit relabel",
            "golden learn",
            "golden compare",
            "drift",
            "bench encode",
            "doctor",
        ] {
            assert!(
                names.iter().any(|listed| listed == name),
                "{name} is not in {names:?}"
            );
        }
    }
}
