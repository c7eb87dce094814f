//! The text format's tokens.

use super::TextFormatError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    /// Without its sign, which is a token of its own: there may be space and comments between them.
    Integer(i128),
    Float(f64),
    Mark(char),
}

/// Reads tokens one after the other, with one to look at beforehand.
pub(super) struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    peeked: Option<Option<Token>>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1, peeked: None }
    }

    /// Where reading has got to.
    pub(super) fn line(&self) -> u32 {
        self.line
    }

    /// Where the next token begins.
    pub(super) fn line_of_next(&mut self) -> Result<u32, TextFormatError> {
        if self.peeked.is_none() {
            self.skip_space();
        }
        Ok(self.line)
    }

    pub(super) fn peek(&mut self) -> Result<Option<&Token>, TextFormatError> {
        if self.peeked.is_none() {
            self.peeked = Some(self.read()?);
        }
        Ok(self.peeked.as_ref().and_then(Option::as_ref))
    }

    pub(super) fn next(&mut self) -> Result<Option<Token>, TextFormatError> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.read(),
        }
    }

    fn fail<T>(&self, problem: &'static str) -> Result<T, TextFormatError> {
        Err(TextFormatError { line: self.line, problem })
    }

    /// Takes the longest beginning whose characters are all of a kind.
    fn take_while(&mut self, is_of_kind: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_of_kind(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn take_char(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let taken = chars.next();
        self.rest = chars.as_str();
        taken
    }

    fn skip_space(&mut self) {
        loop {
            let space = self.take_while(|c| c.is_ascii_whitespace() || c == '\u{b}');
            self.line += space.bytes().filter(|byte| *byte == b'\n').count() as u32;
            if !self.rest.starts_with('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn read(&mut self) -> Result<Option<Token>, TextFormatError> {
        self.skip_space();
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let second_is_digit = self.rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit());
        Ok(Some(match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                Token::Word(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').to_owned())
            }
            '0'..='9' => self.number()?,
            '.' if second_is_digit => self.number()?,
            '"' | '\'' => self.text()?,
            '{' | '}' | '<' | '>' | '[' | ']' | ':' | ',' | ';' | '-' | '.' | '/' => {
                self.take_char();
                Token::Mark(first)
            }
            _ => return self.fail("a character that has no place here"),
        }))
    }

    fn number(&mut self) -> Result<Token, TextFormatError> {
        let mut digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '.');
        // A sign inside belongs to an exponent.
        let is_hexadecimal = digits.starts_with("0x") || digits.starts_with("0X");
        let exponent;
        if !is_hexadecimal && digits.ends_with(['e', 'E']) && self.rest.starts_with(['+', '-']) {
            let sign = self.take_char().unwrap_or('+');
            exponent = format!("{digits}{sign}{}", self.take_while(|c| c.is_ascii_alphanumeric()));
            digits = "";
        } else {
            exponent = String::new();
        }
        let written = if digits.is_empty() { exponent.as_str() } else { digits };
        let whole = |digits: &str, radix| match u64::from_str_radix(digits, radix) {
            Ok(number) => Some(Token::Integer(number.into())),
            Err(_) => None,
        };
        let token = if is_hexadecimal {
            written.get(2..).and_then(|digits| whole(digits, 16))
        } else if written.len() > 1 && written.starts_with('0') && written.bytes().all(|c| c.is_ascii_digit()) {
            written.get(1..).and_then(|digits| whole(digits, 8))
        } else if written.bytes().all(|c| c.is_ascii_digit()) {
            whole(written, 10)
        } else {
            let plain = written.strip_suffix(['f', 'F']).unwrap_or(written);
            let is_plain = plain.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'));
            plain.parse().ok().filter(|_| is_plain).map(Token::Float)
        };
        match token {
            Some(token) => Ok(token),
            None => self.fail("not a number, or one that does not fit 64 bits"),
        }
    }

    fn text(&mut self) -> Result<Token, TextFormatError> {
        let Some(quote) = self.take_char() else { return self.fail("expected a text") };
        // Escapes name bytes, of which several may make one character.
        let mut bytes = Vec::new();
        loop {
            let plain = self.take_while(|c| c != quote && c != '\\' && c != '\n');
            bytes.extend_from_slice(plain.as_bytes());
            match self.take_char() {
                Some('\\') => self.escape(&mut bytes)?,
                Some(end) if end == quote => break,
                _ => return self.fail("a text ends with its line"),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Token::Text(text)),
            Err(_) => self.fail("a text is not UTF-8"),
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self, bytes: &mut Vec<u8>) -> Result<(), TextFormatError> {
        let Some(kind) = self.take_char() else { return self.fail("a text ends with its line") };
        let plain = match kind {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '?' => b'?',
            '\\' => b'\\',
            '\'' => b'\'',
            '"' => b'"',
            '0'..='7' => {
                let mut value = kind.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else { break };
                    self.take_char();
                    value = value * 8 + digit;
                }
                return self.byte(value, bytes);
            }
            'x' | 'X' => {
                let value = self.hexadecimal(1, 2)?;
                return self.byte(value, bytes);
            }
            'u' => {
                let value = self.hexadecimal(4, 4)?;
                return self.character(value, bytes);
            }
            'U' => {
                let value = self.hexadecimal(8, 8)?;
                return self.character(value, bytes);
            }
            _ => return self.fail("an escape that there is not"),
        };
        bytes.push(plain);
        Ok(())
    }

    fn hexadecimal(&mut self, least: usize, most: usize) -> Result<u32, TextFormatError> {
        let mut value: u32 = 0;
        for position in 0..most {
            match self.rest.chars().next().and_then(|c| c.to_digit(16)) {
                Some(digit) => {
                    self.take_char();
                    // Eight digits at most.
                    value = value << 4 | digit;
                }
                None if position < least => return self.fail("an escape that is too short"),
                None => break,
            }
        }
        Ok(value)
    }

    fn byte(&self, value: u32, bytes: &mut Vec<u8>) -> Result<(), TextFormatError> {
        match u8::try_from(value) {
            Ok(byte) => bytes.push(byte),
            Err(_) => return self.fail("an escape beyond a byte"),
        }
        Ok(())
    }

    fn character(&self, value: u32, bytes: &mut Vec<u8>) -> Result<(), TextFormatError> {
        match char::from_u32(value) {
            Some(character) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => return self.fail("an escape that is no character"),
        }
        Ok(())
    }
}
