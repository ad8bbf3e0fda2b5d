//! A program for people: what it would do, in its order, without doing it.

use super::program::{Condition, From, Match, Pattern, Piece, Program, Text, What};

impl Program {
    /// A line for each thing, numbered by the lines of the script. Values are shown by their names.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        for arg in &self.args {
            let otherwise = arg.otherwise.as_ref().map(|value| format!(" (otherwise {value:?})"));
            let help = arg.help.as_ref().map(|help| format!(": {help}"));
            out.push_str(&format!(
                "      needs {}{}{}\n",
                arg.name,
                otherwise.unwrap_or_default(),
                help.unwrap_or_default()
            ));
        }
        for secret in &self.secrets {
            out.push_str(&match &secret.from {
                From::File(path) => format!("      reads {} from the file {path}\n", secret.name),
                From::Env(name) => format!("      reads {} from ${name}\n", secret.name),
            });
        }
        for (number, order) in self.orders.iter().enumerate() {
            if let Some(what) = self.order(number, &order.what) {
                out.push_str(&format!("{:>4}  {what}\n", order.line));
            }
        }
        out
    }

    fn order(&self, number: usize, what: &What) -> Option<String> {
        let to = |order: usize| {
            let line = self.orders.get(order).map(|order| order.line);
            line.map_or_else(|| "the end".to_string(), |line| format!("line {line}"))
        };
        Some(match what {
            What::Send(text) => format!("send {}", self.text(text)),
            What::Break => "send a BREAK".to_string(),
            What::SysRq(key) => format!("send SysRq {key}"),
            What::Pause(time) => format!("pause for {} ms", time.as_millis()),
            What::Say(text) => format!("say {}", self.text(text)),
            What::Set(name, text) => format!("{} is {}", self.name(*name), self.text(text)),
            What::Expect { arms, late, within } => {
                let shown: Vec<&str> =
                    arms.iter().map(|(pattern, _)| pattern.shown.as_str()).collect();
                let within = within.map(|within| format!(" within {} ms", within.as_millis()));
                let late = late.map(|late| format!(", or go on at {}", to(late)));
                format!(
                    "expect {}{}{}",
                    shown.join(" or "),
                    within.unwrap_or_default(),
                    late.unwrap_or_default()
                )
            }
            What::Within(time) => {
                format!("from here on, expect all within {} ms", time.as_millis())
            }
            What::OnTimeout(next) => format!("what does not come in time: go on at {}", to(*next)),
            What::Jump(next) if *next == number + 1 => return None,
            What::Jump(next) => format!("go on at {}", to(*next)),
            What::Unless(condition, next) => {
                format!("unless {}: go on at {}", self.condition(condition), to(*next))
            }
            What::Times(_, times) => format!("{times} times:"),
            What::Next(_, over) => format!("after the last time: go on at {}", to(*over)),
            What::Fail(text) => format!("fail with {}", self.text(text)),
            What::Done(text) => match text.0.is_empty() {
                true => "it is done".to_string(),
                false => format!("it is done: {}", self.text(text)),
            },
            What::GiveUp => "fail by what did not come".to_string(),
        })
    }

    fn condition(&self, condition: &Condition) -> String {
        match condition {
            Condition::Same(one, other) => format!("{} == {}", self.text(one), self.text(other)),
            Condition::Matches(text, Pattern { what: Match::Literal(part), .. }) => {
                format!("{} has {}", self.text(text), self.text(part))
            }
            Condition::Matches(text, pattern) => format!("{} ~ {}", self.text(text), pattern.shown),
            Condition::Not(condition) => format!("not {}", self.condition(condition)),
        }
    }

    fn text(&self, text: &Text) -> String {
        let mut shown = String::from("\"");
        for piece in &text.0 {
            match piece {
                Piece::Value(name) => shown.push_str(&format!("${{{}}}", self.name(*name))),
                Piece::Plain(bytes) => shown.push_str(&bytes.escape_ascii().to_string()),
            }
        }
        shown.push('"');
        shown
    }

    fn name(&self, number: usize) -> &str {
        self.names.get(number).map_or("", String::as_str)
    }
}
