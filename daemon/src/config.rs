//! The configuration file: the same options as the command line, as YAML keys. A flag wins over its
//! environment variable, which wins over the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use serde_json::Value;

use crate::cli::{Cli, Command};

/// Reads the command line, and the configuration file if it names one.
///
/// # Errors
/// One sentence about the file; mistakes on the command line itself end the process as clap does it, with
/// exit code 2.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let first = Cli::command().get_matches_from(&arguments);
    let Some((subcommand, path)) = config_file(&first)? else { return from_matches(&first) };
    let defaults = read(&path)?;
    let command = with_defaults(Cli::command(), subcommand, &path, &defaults)?;
    from_matches(&command.get_matches_from(&arguments))
}

fn from_matches(matches: &ArgMatches) -> Result<Cli> {
    Cli::from_arg_matches(matches).map_err(|error| error.exit())
}

fn config_file(matches: &ArgMatches) -> Result<Option<(&'static str, PathBuf)>> {
    let cli = from_matches(matches)?;
    let (name, args) = match cli.command {
        Command::Run(args) => ("run", args),
        Command::Plan(args) => ("plan", args),
        Command::Check(args) => ("check", args.run),
        Command::Get(_)
        | Command::Top(_)
        | Command::Explain(_)
        | Command::Sandbox(_)
        | Command::Cni
        | Command::Cleanup(_)
        | Command::Version => {
            return Ok(None);
        }
    };
    Ok(args.config.map(|path| (name, path)))
}

/// The keys of the file with their values as the command line would have them.
fn read(path: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {shown}"))?;
    let value: Value = serde_saphyr::from_str(&text).with_context(|| format!("{shown} is not YAML"))?;
    let Value::Object(keys) = value else { bail!("{shown} must hold options as `key: value`") };
    keys.into_iter()
        .map(|(key, value)| {
            let words = words(&value)
                .with_context(|| format!("{shown}: {key} must be a value or a list of values"))?;
            Ok((key, words))
        })
        .collect()
}

fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(word) => Some(vec![word.clone()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::Bool(flag) => Some(vec![flag.to_string()]),
        Value::Array(items) => items
            .iter()
            .map(|item| words(item).filter(|words| words.len() == 1))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat()),
        Value::Null | Value::Object(_) => None,
    }
}

fn with_defaults(
    command: clap::Command,
    subcommand: &str,
    path: &Path,
    defaults: &[(String, Vec<String>)],
) -> Result<clap::Command> {
    let known: Vec<String> = command
        .find_subcommand(subcommand)
        .into_iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect();
    for (key, _) in defaults {
        if key == "config" || !known.contains(key) {
            bail!(
                "{}: unknown option {key}; the keys are the long flags of `fairway {subcommand} --help`",
                path.display()
            );
        }
    }
    Ok(command.mut_subcommand(subcommand, |subcommand| {
        subcommand.mut_args(|argument| {
            let written = defaults.iter().find(|(key, _)| Some(key.as_str()) == argument.get_long());
            match written {
                Some((_, words)) => argument.default_values(words.clone()),
                None => argument,
            }
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], file: &str) -> Result<crate::cli::RunArgs> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("fairway.yaml");
        std::fs::write(&path, file)?;
        let path = path.into_os_string();
        let all = ["fairway", "run", "--config"].into_iter().map(OsString::from).chain([path]);
        let command = parse(all.chain(arguments.iter().map(OsString::from)))?.command;
        let Command::Run(args) = command else { bail!("not run but {command:?}") };
        Ok(args)
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let args =
            run(&["--node-name", "b"], "node-name: a\ncluster-domain: corp.local\ndns-ttl: 30").unwrap();
        assert_eq!(args.node.node_name.as_deref(), Some("b"));
        assert_eq!(args.names.cluster_domain, "corp.local");
        assert_eq!(args.names.dns_ttl, 30);
        assert_eq!(args.source.service_cidr.len(), 1);
    }

    #[test]
    fn lists_are_lists() {
        let args = run(&[], "service-cidr: [10.96.0.0/16, 'fd00::/112']").unwrap();
        assert_eq!(args.source.service_cidr.len(), 2);
    }

    #[test]
    fn an_unknown_key_and_an_odd_value_are_named() {
        let error = run(&[], "nodename: a").unwrap_err().to_string();
        assert!(error.contains("unknown option nodename"), "{error}");
        let error = run(&[], "node-name: {a: b}").unwrap_err().to_string();
        assert!(error.contains("node-name must be a value"), "{error}");
    }
}
