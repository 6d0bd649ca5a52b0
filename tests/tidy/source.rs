//! Rust source as tidy sees it: tokens and paths, without comments and strings.
//!
//! Knows: enough of the language to tell a path in code from one in a sentence, test code from what
//! ships, and where a function ends. Must not know: which room may do what.

use std::path::Path;

/// A word or a sign of a source file.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// A word, `::`, one other sign, or `""` for any literal text.
    pub(crate) text: String,
    pub(crate) line: usize,
    /// Whether it lies in an item under `#[cfg(test)]`.
    pub(crate) in_test: bool,
    /// How many `mod name { … }` are around it.
    pub(crate) inline_modules: usize,
}

/// A path such as `crate::codec::Reader`, in a `use` or in an expression.
#[derive(Debug, Clone)]
pub(crate) struct PathUse {
    pub(crate) segments: Vec<String>,
    /// The name after `as`, if there is one.
    pub(crate) alias: Option<String>,
    pub(crate) line: usize,
    pub(crate) inline_modules: usize,
}

/// A function and the lines it takes, from `fn` to its last brace.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// The tokens of a file.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some((text, line)) = lexer.next_token() {
        tokens.push(Token { text, line, in_test: false, inline_modules: 0 });
    }
    mark_tests(&mut tokens);
    mark_modules(&mut tokens);
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn bump(&mut self) {
        self.line += usize::from(self.peek(0) == '\n');
        self.at += 1;
    }

    fn next_token(&mut self) -> Option<(String, usize)> {
        loop {
            let (first, second) = (self.peek(0), self.peek(1));
            let line = self.line;
            if self.at >= self.chars.len() {
                return None;
            } else if first.is_whitespace() {
                self.bump();
            } else if first == '/' && second == '/' {
                self.skip_while(|c| c != '\n');
            } else if first == '/' && second == '*' {
                self.skip_block_comment();
            } else if let Some(hashes) = self.raw_string_hashes() {
                self.skip_raw_string(hashes);
                return Some(("\"\"".to_owned(), line));
            } else if is_word(first) {
                return Some((self.word(), line));
            } else if first == '"' || (first == '\'' && self.is_char_literal()) {
                self.skip_quoted(first);
                return Some(("\"\"".to_owned(), line));
            } else if first == ':' && second == ':' {
                self.at += 2;
                return Some(("::".to_owned(), line));
            } else {
                self.bump();
                return Some((first.to_string(), line));
            }
        }
    }

    fn skip_while(&mut self, keep_on: impl Fn(char) -> bool) {
        while self.at < self.chars.len() && keep_on(self.peek(0)) {
            self.bump();
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            let pair = (self.peek(0), self.peek(1));
            if self.at >= self.chars.len() {
                return;
            }
            self.bump();
            if pair == ('/', '*') || pair == ('*', '/') {
                self.bump();
                depth += if pair == ('/', '*') { 1 } else { -1 };
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// The number of `#` of a raw string that begins here.
    fn raw_string_hashes(&self) -> Option<usize> {
        let prefix = usize::from(matches!(self.peek(0), 'b' | 'c'));
        if self.peek(prefix) != 'r' {
            return None;
        }
        let hashes = (0..).take_while(|&i| self.peek(prefix + 1 + i) == '#').count();
        (self.peek(prefix + 1 + hashes) == '"').then_some(hashes)
    }

    fn skip_raw_string(&mut self, hashes: usize) {
        self.skip_while(|c| c != '"');
        self.bump();
        while self.at < self.chars.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|i| self.peek(i) == '#');
            self.bump();
            if closes {
                (0..hashes).for_each(|_| self.bump());
                return;
            }
        }
    }

    /// Not a lifetime.
    fn is_char_literal(&self) -> bool {
        self.peek(1) == '\\' || self.peek(2) == '\''
    }

    fn skip_quoted(&mut self, quote: char) {
        self.bump();
        while self.at < self.chars.len() && self.peek(0) != quote {
            if self.peek(0) == '\\' {
                self.bump();
            }
            self.bump();
        }
        self.bump();
    }

    fn word(&mut self) -> String {
        let start = self.at;
        self.skip_while(is_word);
        self.chars[start..self.at].iter().collect()
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if !is_test_attribute(tokens, at) {
            at += 1;
            continue;
        }
        let end = item_end(tokens, at);
        tokens[at..end].iter_mut().for_each(|token| token.in_test = true);
        at = end;
    }
}

/// Whether `#[cfg(test)]`, or a longer condition that asks for tests, begins here.
fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    let is = |i: usize, text: &str| tokens.get(at + i).is_some_and(|t| t.text == text);
    if !(is(0, "#") && is(1, "[") && is(2, "cfg")) {
        return false;
    }
    let end = matching(tokens, at + 1);
    let asks = |text: &str| tokens[at..end].iter().any(|t| t.text == text);
    asks("test") && !asks("not")
}

/// The index after the item whose attributes begin at `at`.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|t| t.text == "#") {
        at = matching(tokens, at + 1);
    }
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" => return matching(tokens, at),
            "(" | "[" => at = matching(tokens, at),
            _ => at += 1,
        }
    }
    tokens.len()
}

/// The index after the bracket that closes the one at `open`.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

fn mark_modules(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        let opens = tokens[at].text == "mod" && tokens.get(at + 2).is_some_and(|t| t.text == "{");
        if opens {
            let end = matching(tokens, at + 2);
            tokens[at + 3..end].iter_mut().for_each(|token| token.inline_modules += 1);
        }
    }
}

/// Every path of a file, each branch of a `use` tree for itself.
pub(crate) fn paths(tokens: &[Token]) -> Vec<PathUse> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if token.text == "use" {
            at = use_tree(tokens, at + 1, &[], &mut found);
        } else if token.text.starts_with(is_word) && is_sign(tokens, at + 1, "::") {
            let (segments, end) = segments_from(tokens, at);
            found.push(path_of(token, segments));
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

fn is_sign(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|t| t.text == text)
}

fn path_of(token: &Token, segments: Vec<String>) -> PathUse {
    PathUse { segments, alias: None, line: token.line, inline_modules: token.inline_modules }
}

/// The words from `at` on that `::` connects, and the index after them.
fn segments_from(tokens: &[Token], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    while tokens.get(at).is_some_and(|t| t.text.starts_with(is_word)) {
        segments.push(tokens[at].text.clone());
        at += 1;
        if !is_sign(tokens, at, "::") {
            break;
        }
        at += 1;
    }
    (segments, at)
}

/// Adds the branches of the tree at `at` under `prefix`; returns the index after it.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
    let first = at;
    at += usize::from(is_sign(tokens, at, "::"));
    let (segments, end) = segments_from(tokens, at);
    let path = [prefix, &segments].concat();
    at = end;
    if is_sign(tokens, at, "{") {
        at += 1;
        while at < tokens.len() && !is_sign(tokens, at, "}") {
            at = use_tree(tokens, at, &path, found);
            at += usize::from(is_sign(tokens, at, ","));
        }
        return at + 1;
    }
    at += usize::from(is_sign(tokens, at, "*"));
    let mut branch = path_of(&tokens[first], path);
    if is_sign(tokens, at, "as") {
        branch.alias = tokens.get(at + 1).map(|t| t.text.clone());
        at += 2;
    }
    found.push(branch);
    // A sign that no tree has must not stop the walk.
    at.max(first + 1)
}

/// Every function with a body.
pub(crate) fn functions(tokens: &[Token]) -> Vec<Function> {
    let is_name = |at: usize| tokens.get(at).is_some_and(|t| t.text.starts_with(is_word));
    (0..tokens.len())
        .filter(|&at| tokens[at].text == "fn" && is_name(at + 1))
        .filter_map(|at| {
            let end = item_end(tokens, at);
            let last = tokens.get(end.checked_sub(1)?)?;
            let (name, line) = (tokens[at + 1].text.clone(), tokens[at].line);
            (last.text == "}").then(|| Function { name, line, lines: last.line - line + 1 })
        })
        .collect()
}

/// The names of the files that `mod name;` under `#[cfg(test)]` brings in.
pub(crate) fn test_modules(tokens: &[Token]) -> Vec<String> {
    let is_declared =
        |at: usize| tokens[at].text == "mod" && tokens[at].in_test && is_sign(tokens, at + 2, ";");
    (0..tokens.len()).filter(|&at| is_declared(at)).map(|at| tokens[at + 1].text.clone()).collect()
}

/// The module that a file of a crate is: `a::b` for `a/b.rs`, `a` for `a/mod.rs`, nothing for the
/// root.
pub(crate) fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
        module.pop();
    }
    module
}
