#!/usr/bin/env python3
"""Writes texts.json: 200 texts that tokenizers tend to get wrong.

    python3 tests/tokenizers/make_texts.py
"""
import json
import pathlib

SPACES = [
    "", " ", "  ", "   ", "    ", "\t", "\t\t", "\n", "\n\n", "\n\n\n\n", "\r", "\r\n", "\r\n\r\n", " \n", "\n ", " \n \n ",
    "\t \t", " " * 7, " " * 17, " " * 40, "\n" * 33, "a  b", "a   b    c", " leading", "  two leading", "trailing ", "trailing  ",
    "tab\tbetween", "line one\nline two", "line one\r\nline two\r\n", "mixed \t\n \r\n end", "a\u00a0b\u2003c\u3000d", "x\u200by\u2060z\ufeff",
    "\ufeffbegins with a mark", "a \n\n b", "word\n\n\n  word", "\x0b\x0c vertical", "a\u2028b\u2029c\u0085d",
]
WORDS = [
    "Hello, world!", "hello hello Hello HELLO hELLO", "The quick brown fox jumps over the lazy dog.", "I'll we've you're he'd it's I'm don't",
    "I'LL WE'VE YOU'RE HE'D IT'S I'M DON'T", "'s 't 're 've 'm 'll 'd 'S 'T", "rock'n'roll o'clock '90s", "\u2019s it\u2019s don\u2019t \u2018quoted\u2019",
    "'\u017f IT'\u017f a long s", "camelCase PascalCase snake_case kebab-case SCREAMING_CASE", "HTTPServer XMLHttpRequest iPhone McDonald's",
    "antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaftskapit\u00e4n", "pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 50, "ab" * 40, "xyzzy" * 13, "Aa" * 20, "supercalifragilisticexpialidocious" * 2, "e\u0301e\u0301e\u0301 cafe\u0301 caf\u00e9",
    "\u01c5 \u01c8 titlecase, \u00df \u1e9e, \ufb01 \ufb02 ligatures", "na\u00efve fa\u00e7ade co\u00f6perate \u00c5ngstr\u00f6m \u212bngstrom", "A.B.C. e.g. i.e. U.S.A. Ph.D.",
    "one two  three   four    five", "word-word\u2013word\u2014word", "under_score__double___triple", "end.Start end?Start end!Start", " .", " ,a", "( a )",
]
NUMBERS = [
    "0", "7", "12", "123", "1234", "12345", "123456", "1234567", "12345678901234567890", "3.14159", "-17", "1,234,567.89", "1e10 1E-5 0x1F 0b1010",
    "2024-02-29T23:59:59Z", "12:34:56", "$5.00 \u20ac5,00 \u00a35", "50% 100\u2030", "1st 2nd 3rd 4th", "\u00b2\u00b3\u00b9 x\u00b2 \u00bd \u00be", "\u2160 \u2163 \u2171", "\u0661\u0662\u0663\u0664\u0665", "\u0967\u0968\u0969\u096a",
    "\uff11\uff12\uff13\uff14", "a1b2c3", "v1.2.3-beta.4+build.5", " 12345", "  007", "1 2 3 4 5", "1\n2\n3", "192.168.0.1:8080", "#1 No.2", "10^3 2**8", "\U0001d7d8\U0001d7d9\U0001d7da",
]
CODE = [
    "def f(x):\n    return x + 1\n", "if (a == b) {\n\tc++;\n}\n", "for(i=0;i<10;i++){a[i]=i*i;}", "#include <stdio.h>\nint main(void) { return 0; }",
    "SELECT * FROM t WHERE a >= 3 AND b != 'x';", "<div class=\"a\">text &amp; more</div>", "{\"key\": [1, 2.5, null, true], \"s\": \"a\\nb\"}", "// comment\n/* block */ # hash",
    "x = y if z else w  # trailing", "a->b::c.d?.e ?? f", "\\alpha \\frac{1}{2} $x_i^2$", "```rust\nfn main() {}\n```", "https://example.com/path?q=1&r=a%20b#frag",
    "user@example.org", "/usr/local/bin/../lib", "C:\\Users\\me\\file.txt", "==========", "----------", "..........", "!!!???!!!", "((((()))))", "&&||!~^", "<<<>>>", "a=b==c===d",
    "\t\tindented\n\t\t\tmore\n", "        eight spaces", "                sixteen", "\"quoted\" 'single' `tick`", "@#$%^&*()_+-=[]{}|;':\",./<>?", "*bold* _it_ ~~gone~~",
    "- item\n- item\n  - sub\n", "| a | b |\n|---|---|\n", "$HOME ${VAR} $(cmd)", "a\\b\\\\c", "lambda x: x**2", "0xDEADBEEF", "..\n...\n....", "x:=1;y=:2",
]
SCRIPTS = [
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3067\u3059\u3002", "\u4e2d\u6587\u6587\u672c\uff0c\u6807\u70b9\u7b26\u53f7\u3002", "\u7e41\u9ad4\u4e2d\u6587\u8207\u6ce8\u97f3\u3105\u3106\u3107", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442",
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03ba\u03b5\u03af\u03bc\u03b5\u03bd\u03b1", "\u0627\u0644\u0644\u063a\u0629 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u062c\u0645\u064a\u0644\u0629", "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627", "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u09ac\u09be\u0982\u09b2\u09be \u09ad\u09be\u09b7\u09be",
    "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e44\u0e21\u0e48\u0e21\u0e35\u0e0a\u0e48\u0e2d\u0e07\u0e27\u0e48\u0e32\u0e07", "\u1780\u1798\u17d2\u1796\u17bb\u1787\u17b6", "Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u", "T\u00fcrk\u00e7e \u0130stanbul \u0131\u011f\u0131r", "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8", "\u0540\u0561\u0575\u0565\u0580\u0565\u0576", "\u12a0\u121b\u122d\u129b",
    "\u4f60\u597dHello\u4e16\u754cworld123", "\u30ab\u30bf\u30ab\u30ca\u3072\u3089\u304c\u306a\u6f22\u5b57", "\u3000\u5168\u89d2\u7a7a\u767d", "\uff21\uff22\uff23 full width", "\U00020000\U0002a6d6 rare", "\u00a1Hola! \u00bfQu\u00e9 tal?",
]
SYMBOLS = [
    "\U0001f999", "\U0001f600\U0001f601\U0001f602", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\u2764\ufe0f vs \u2764", "a\u0300\u0301\u0302\u0303b", "Z\u0351\u036b\u0343\u036aa\u0302l\u0346g\u034co", "\u2211\u222b\u2202 \u2260 \u2264 \u221e",
    "\u2190\u2191\u2192\u2193", "\u2500\u2502\u250c\u2510", "\u2588\u2593\u2592\u2591", "\u20bf \u20b9 \u20a9", "\u266a\u266b", "\ufffd\ufffd", "\x00", "a\x00b", "\x01\x02\x1b[31mred\x1b[0m", "\x7f\x80\x9f", "\ue000\uf8ff private", "\U0010ffff\U000e0001",
]
SPECIAL = [
    "<s>", "</s>", "<s>text</s>", "<unk>", "<|im_start|>user\nhi<|im_end|>\n", "<|begin_of_text|>a<|eot_id|>", "<bos><start_of_turn>user\nhi<end_of_turn>\n", "<|endoftext|>", "a<|endoftext|>b",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c><\uff5cUser\uff5c>hi", "<|start|>assistant<|channel|>final<|message|>ok<|return|>", "<think>\nhm\n</think>\n\nyes", "<0x0A> <0xFF>", "\u2581lower\u2581one eighth \u2581\u2581", "[INST] hi [/INST]",
]
TEXTS = SPACES + WORDS + NUMBERS + CODE + SCRIPTS + SYMBOLS + SPECIAL
assert len(TEXTS) == 200 and len(set(TEXTS)) == 200, (len(TEXTS), len(set(TEXTS)))
here = pathlib.Path(__file__).parent
here.joinpath("texts.json").write_text("[\n" + ",\n".join(json.dumps(t) for t in TEXTS) + "\n]\n")
