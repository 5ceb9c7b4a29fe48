// Texts and numbers for people.

import assert from "node:assert/strict";
import { test } from "node:test";

import { ago, endpoint, fit, plain, short } from "../../../appswitch/web/static/text.mjs";

test("what would move or hide the text around it is shown as such", () => {
  assert.equal(plain("a\u202eb\u0000\n\u200bc"), "a\ufffdb\ufffd\ufffd\ufffdc");
  assert.equal(plain("\ud800x"), "\ufffdx");
  assert.equal(plain("שלום 👩‍💻 <b>"), "שלום 👩‍💻 <b>");
  assert.equal(plain(null), "");
});

test("a text is cut where it still fits, between letters and not within", () => {
  const measure = (text) => Array.from(new Intl.Segmenter().segment(text)).length;
  assert.equal(fit("short", 5, measure), "short");
  assert.equal(fit("shorter", 5, measure), "shor…");
  assert.equal(fit("👩‍💻👩‍💻👩‍💻", 2, measure), "👩‍💻…");
  assert.equal(fit("x".repeat(100_000), 5, measure), "xxxx…");
});

test("numbers and times are short", () => {
  assert.deepEqual([0, 0.04, 0.25, 4, 12.34, 123.4, 12_345, 5e6].map(short), ["0", "<0.1", "0.3", "4", "12.3", "123", "12.3k", "5M"]);
  assert.deepEqual([3, 300, 7300].map(ago), ["3 s", "5 min", "2 h"]);
  assert.deepEqual([endpoint("10.0.0.1", 80), endpoint("fd00::1", 80), endpoint("web", null)], ["10.0.0.1:80", "[fd00::1]:80", "web"]);
});
