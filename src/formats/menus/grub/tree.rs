//! A menu of GRUB as a tree of statements (`grub-core/script/parser.y`).

use std::iter::Peekable;
use std::vec::IntoIter;

use super::words::{Command, What, Word};

/// Statements inside each other that are read before a file counts as hostile.
const MAX_DEPTH: usize = 64;

/// A statement.
#[derive(Debug)]
pub(super) enum Statement {
    /// A command, with the block behind it: that of an entry.
    Command {
        /// Counted from 1.
        line: usize,
        words: Vec<Word>,
        block: Option<Vec<Statement>>,
    },
    /// `if … then … elif … then … else … fi`: conditions and what follows them, then what follows if none holds.
    If { arms: Vec<(Vec<Statement>, Vec<Statement>)>, otherwise: Vec<Statement> },
    /// `for NAME in WORDS`, `while …`, `until …`.
    Loop {
        line: usize,
        /// What a `for` goes through, with its name in front.
        words: Option<Vec<Word>>,
        condition: Vec<Statement>,
        /// Whether it goes on while the condition does not hold.
        is_until: bool,
        body: Vec<Statement>,
    },
    /// `function NAME { … }`.
    Function { name: String, body: Vec<Statement> },
}

/// Words that mean something where a command begins.
const KEYWORDS: [&str; 11] =
    ["if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "function"];

enum Token {
    Keyword(usize, &'static str),
    Words(usize, Vec<Word>),
    Opens(usize),
    Closes(usize),
}

/// Makes a tree of commands; returns it with what GRUB refuses the menu for, by lines.
pub(super) fn read(commands: Vec<Command>) -> (Vec<Statement>, Vec<(usize, String)>) {
    let mut tokens = Vec::new();
    for Command { line, what } in commands {
        match what {
            What::Opens => tokens.push(Token::Opens(line)),
            What::Closes => tokens.push(Token::Closes(line)),
            What::Words(words) => {
                let mut words = words.into_iter().peekable();
                let keyword = |word: &Word| {
                    let text = word.text()?;
                    KEYWORDS.into_iter().find(|keyword| *keyword == text)
                };
                // A name follows these, whatever it is.
                let mut is_name = false;
                while let Some(found) = words.peek().filter(|_| !is_name).and_then(keyword) {
                    words.next();
                    tokens.push(Token::Keyword(line, found));
                    is_name = matches!(found, "for" | "function");
                }
                let words: Vec<Word> = words.collect();
                if !words.is_empty() {
                    tokens.push(Token::Words(line, words));
                }
            }
        }
    }
    let mut reader = Reader {
        tokens: tokens.into_iter().peekable(),
        problems: Vec::new(),
        unclosed: None,
        depth: 0,
        blocks: 0,
    };
    let statements = reader.statements(&[]);
    let unclosed = reader
        .unclosed
        .map(|(line, what)| (line, format!("{what} and not closed: GRUB refuses the whole menu")));
    reader.problems.extend(unclosed);
    (statements, reader.problems)
}

struct Reader {
    tokens: Peekable<IntoIter<Token>>,
    problems: Vec<(usize, String)>,
    /// The outermost block, `if` or loop that the text ends in.
    unclosed: Option<(usize, &'static str)>,
    depth: usize,
    /// Blocks that are open.
    blocks: usize,
}

impl Reader {
    /// Reads statements up to one of these keywords, the end of a block, or of everything.
    fn statements(&mut self, ends: &[&str]) -> Vec<Statement> {
        let mut statements = Vec::new();
        self.depth += 1;
        while let Some(token) = self.tokens.peek() {
            match token {
                Token::Closes(_) if self.blocks > 0 => break,
                Token::Keyword(_, keyword) if ends.contains(keyword) => break,
                _ => {}
            }
            if self.depth > MAX_DEPTH {
                let line = self.tokens.next().map_or(0, |token| token.line());
                self.problems.push((line, "its blocks go deeper than any real menu's".to_owned()));
                self.tokens.by_ref().for_each(drop);
                break;
            }
            match self.tokens.next() {
                Some(Token::Words(line, words)) => {
                    let block = self.block_if_any();
                    statements.push(Statement::Command { line, words, block });
                }
                Some(Token::Keyword(line, keyword)) => statements.extend(self.compound(line, keyword)),
                Some(Token::Opens(line)) => statements.extend(self.block(line)),
                Some(Token::Closes(line)) => {
                    let what = "a block is closed that nobody opened: GRUB refuses the whole menu";
                    self.problems.push((line, what.to_owned()));
                }
                None => break,
            }
        }
        self.depth -= 1;
        statements
    }

    fn block_if_any(&mut self) -> Option<Vec<Statement>> {
        let line = self.tokens.peek().and_then(|token| match token {
            Token::Opens(line) => Some(*line),
            _ => None,
        })?;
        self.tokens.next();
        Some(self.block(line))
    }

    /// Reads a block whose beginning was read.
    fn block(&mut self, line: usize) -> Vec<Statement> {
        self.blocks += 1;
        let statements = self.statements(&[]);
        self.blocks -= 1;
        if self.tokens.next().is_none() {
            self.is_open(line, "a block is opened");
        }
        statements
    }

    fn is_open(&mut self, line: usize, what: &'static str) {
        // The outermost one ends last.
        self.unclosed = Some((line, what));
    }

    fn takes(&mut self, keyword: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Keyword(_, found) if *found == keyword)).is_some()
    }

    fn compound(&mut self, line: usize, keyword: &'static str) -> Option<Statement> {
        match keyword {
            "if" => Some(self.condition(line)),
            "for" | "while" | "until" => Some(self.repetition(line, keyword)),
            "function" => {
                let name = match self.tokens.next_if(|token| matches!(token, Token::Words(..)))? {
                    Token::Words(_, words) => words.first()?.text()?.to_owned(),
                    _ => return None,
                };
                Some(Statement::Function { name, body: self.block_if_any().unwrap_or_default() })
            }
            other => {
                self.problems
                    .push((line, format!("{other} stands where no command begins: GRUB refuses it")));
                None
            }
        }
    }

    fn condition(&mut self, line: usize) -> Statement {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.statements(&["then", "elif", "else", "fi"]);
            let _ = self.takes("then");
            arms.push((condition, self.statements(&["elif", "else", "fi"])));
            if !self.takes("elif") {
                break;
            }
        }
        if self.takes("else") {
            otherwise = self.statements(&["fi"]);
        }
        if !self.takes("fi") {
            self.is_open(line, "an if is opened");
        }
        Statement::If { arms, otherwise }
    }

    fn repetition(&mut self, line: usize, keyword: &str) -> Statement {
        let (mut words, mut condition) = (None, Vec::new());
        if keyword == "for" {
            if let Some(Token::Words(_, found)) =
                self.tokens.next_if(|token| matches!(token, Token::Words(..)))
            {
                words = Some(found);
            }
        } else {
            condition = self.statements(&["do", "done"]);
        }
        let _ = self.takes("do");
        let body = self.statements(&["done"]);
        if !self.takes("done") {
            self.is_open(line, "a loop is opened");
        }
        Statement::Loop { line, words, condition, is_until: keyword == "until", body }
    }
}

impl Token {
    fn line(&self) -> usize {
        match self {
            Token::Keyword(line, _) | Token::Words(line, _) | Token::Opens(line) | Token::Closes(line) => {
                *line
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::split;
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        read(split(text, 1000).commands).1.into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn conditions_loops_functions_and_blocks_are_parts_of_a_tree() {
        let text = "if a; then b; elif c; then d\nelse e; fi\nfor x in 1 2; do f; done\nwhile g; do h; done\n\
                    function i {\n j\n}\nmenuentry k {\n if l\n then m; fi\n}\n";
        let (statements, problems) = read(split(text, 100).commands);
        assert!(problems.is_empty(), "{problems:?}");
        let [
            Statement::If { arms, otherwise },
            Statement::Loop { words: Some(words), body, .. },
            Statement::Loop { words: None, condition, .. },
            Statement::Function { name, .. },
            Statement::Command { block: Some(block), .. },
        ] = &statements[..]
        else {
            panic!("{statements:?}")
        };
        assert_eq!((arms.len(), otherwise.len(), words.len(), body.len(), condition.len()), (2, 1, 4, 1, 1));
        assert_eq!((name.as_str(), block.len()), ("i", 1));
    }

    #[test]
    fn what_is_not_closed_or_stands_alone_is_named() {
        assert_eq!(lines("if a; then\nb\n"), [1]);
        assert_eq!(lines("menuentry a {\nif b; then\nc\n}\n"), [2]);
        assert_eq!(lines("\nfi\n"), [2]);
        assert_eq!(lines("a\n}\n"), [2]);
        assert_eq!(lines("menuentry a {\nsubmenu b {\n"), [1]);
        assert_eq!(lines(&"a {\n".repeat(70)).len(), 2);
    }
}
