//! `[ … ]` and `test` of GRUB (`grub-core/commands/test.c`), as far as a menu itself tells whether it holds.

use crate::formats::menus::IsThere;
use crate::formats::menus::ways::{Condition, is_open};

/// Returns the condition that the arguments state; `is_there` tells whether a file is there.
pub(super) fn condition(args: &[String], is_there: IsThere<'_>) -> Condition {
    any(args.split(|arg| arg == "-o").map(|args| {
        let parts = args.split(|arg| arg == "-a").map(|args| simple(args, is_there));
        all(parts.collect())
    }))
}

/// All of them hold.
fn all(parts: Vec<Condition>) -> Condition {
    let mut open = Vec::new();
    for part in parts {
        match part {
            Condition::Known(false) => return Condition::Known(false),
            Condition::Known(true) => {}
            other => open.push(other),
        }
    }
    match (open.pop(), open.is_empty()) {
        (None, _) => Condition::Known(true),
        (Some(only), true) => only,
        (Some(_), false) => Condition::Any,
    }
}

/// One of them holds.
fn any(parts: impl Iterator<Item = Condition>) -> Condition {
    all(parts.map(Condition::not).collect()).not()
}

fn simple(args: &[String], is_there: IsThere<'_>) -> Condition {
    match args {
        [] => Condition::Known(false),
        [not, rest @ ..] if not == "!" => simple(rest, is_there).not(),
        [a, operator, b] if matches!(operator.as_str(), "=" | "==") => Condition::equal(a, b),
        [a, operator, b] if operator == "!=" => Condition::equal(a, b).not(),
        [operator, value] if operator == "-n" => is_not_empty(value),
        [operator, value] if operator == "-z" => is_not_empty(value).not(),
        [operator, path] if matches!(operator.as_str(), "-f" | "-e" | "-s" | "-d") => is_file(path, is_there),
        [value] => is_not_empty(value),
        // Numbers, order, times of files: what menus seldom ask.
        [a, operator, b] if !is_open(a) && !is_open(b) => numbers(a, operator, b),
        _ => Condition::open(args.join(" ")),
    }
}

fn is_not_empty(value: &str) -> Condition {
    // It has more than the variable in it.
    let is_variable = value.starts_with("${") && value.ends_with('}') && value.matches("${").count() == 1;
    if is_variable { Condition::open(format!("-n {value}")) } else { Condition::Known(!value.is_empty()) }
}

fn is_file(path: &str, is_there: IsThere<'_>) -> Condition {
    let other_device = ["(hd", "(fd", "(ahci", "(usb", "(crypto"].iter().any(|disk| path.starts_with(disk));
    let known = if other_device { None } else { is_there(&device_less(path)) };
    known.map_or_else(|| Condition::open(format!("-f {path}")), Condition::Known)
}

/// Returns a path without the device in front: `(cd0)/boot/gentoo`, `($root)/boot/gentoo`.
pub(super) fn device_less(path: &str) -> String {
    // A device in a variable may bring brackets of its own.
    let rest = path.strip_prefix('(').and_then(|rest| Some(rest.split_once(')')?.1));
    rest.unwrap_or(path).trim_start_matches(')').to_owned()
}

fn numbers(a: &str, operator: &str, b: &str) -> Condition {
    let (Ok(x), Ok(y)) = (a.parse::<i64>(), b.parse::<i64>()) else {
        return Condition::open(format!("{a} {operator} {b}"));
    };
    match operator {
        "-eq" => Condition::Known(x == y),
        "-ne" => Condition::Known(x != y),
        "-lt" => Condition::Known(x < y),
        "-le" => Condition::Known(x <= y),
        "-gt" => Condition::Known(x > y),
        "-ge" => Condition::Known(x >= y),
        _ => Condition::open(format!("{a} {operator} {b}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_menu_tells_is_decided() {
        for (text, expected) in [
            ("", Some(false)),
            ("a", Some(true)),
            ("a = a", Some(true)),
            ("a != a", Some(false)),
            ("! a = b", Some(true)),
            ("-z a", Some(false)),
            ("-n ${a}", None),
            ("x${a} = xy", None),
            ("a = a -a b = c", Some(false)),
            ("a = b -o b = b", Some(true)),
            ("${a} = x -a b = c", Some(false)),
            ("-f /there", Some(true)),
            ("! -e /gone", Some(true)),
            ("-s ${prefix}/grubenv", None),
            ("-e (hd0,1)/there", None),
            ("-e (${root})/there", Some(true)),
            ("2 -gt 1", Some(true)),
            ("a < b", None),
        ] {
            let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let mut is_there = |path: &str| (!is_open(path)).then_some(path == "/there");
            let found = match condition(&args, &mut is_there) {
                Condition::Known(holds) => Some(holds),
                Condition::Any | Condition::Open { .. } => None,
            };
            assert_eq!(found, expected, "{text}");
        }
    }
}
