import XCTest

@testable import EdgeModel

final class CharacterBufferTests: XCTestCase {
  private func pieces(_ pieces: String...) -> (parts: [String], lost: Int) {
    var buffer = CharacterBuffer()
    let parts = pieces.map { buffer.take($0) } + [buffer.finish()]
    return (parts.filter { !$0.isEmpty }, buffer.lost)
  }

  func testPlainTextComesOneCharacterLate() {
    XCTAssertEqual(pieces("Hel", "lo").parts, ["He", "ll", "o"])
  }

  func testAnAccentJoinsItsLetter() {
    XCTAssertEqual(pieces("caf", "e", "\u{301}", "!").parts, ["ca", "f", "e\u{301}", "!"])
  }

  func testAFlagAndAFamilyStayWhole() {
    XCTAssertEqual(pieces("\u{1F1E9}", "\u{1F1EA}", " ").parts, ["\u{1F1E9}\u{1F1EA}", " "])
    XCTAssertEqual(pieces("\u{1F469}", "\u{200D}", "\u{1F4BB}").parts, ["\u{1F469}\u{200D}\u{1F4BB}"])
  }

  func testWhatTheRuntimeLeftOutIsOneMarkACharacter() {
    let found = pieces("a", "", "", "b", "")
    XCTAssertEqual(found.parts.joined(), "a\u{FFFD}b\u{FFFD}")
    XCTAssertEqual(found.lost, 2)
  }
}
