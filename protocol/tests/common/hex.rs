//! Bytes as text. `#` starts a comment that goes to the end of its line; white space means nothing.

/// Lower case, no spaces.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower case, one space between bytes.
pub(crate) fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Reads hex with comments and white space; an odd digit or another character is an error with its line.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        let digits: Vec<char> = code.chars().filter(|c| !c.is_whitespace()).collect();
        for pair in digits.chunks(2) {
            let [high, low] = pair else { return Err(format!("line {}: half a byte", number + 1)) };
            let (Some(high), Some(low)) = (high.to_digit(16), low.to_digit(16)) else {
                return Err(format!("line {}: {}{} is no byte", number + 1, pair[0], pair[1]));
            };
            bytes.push(u8::try_from(high * 16 + low).unwrap());
        }
    }
    Ok(bytes)
}
