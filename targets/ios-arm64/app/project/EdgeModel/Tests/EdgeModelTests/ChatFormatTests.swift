import Foundation
import XCTest

@testable import EdgeModel

final class ChatFormatTests: XCTestCase {
  private func format(trims: Bool = false, system: Bool = true, templated: Bool = true) throws -> ChatFormat {
    let text = """
      {"schema": 1, "templated": \(templated), "start": "<u>", "system_start": \(system ? "\"<s>\"" : "null"),
       "system_end": \(system ? "\"</s><u>\"" : "null"), "answer": "</u><a>", "next": "</a><u>", "trims": \(trims),
       "bos_tokens": 0, "stop": ["</a>"]}
      """
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(ChatFormat.self, from: Data(text.utf8))
  }

  func testTurns() throws {
    let turns = [Message(.user, "Q"), Message(.assistant, "A"), Message(.user, "R ")]
    XCTAssertEqual(try format().prompt(turns), "<u>Q</u><a>A</a><u>R </u><a>")
    XCTAssertEqual(try format(trims: true).prompt(turns), "<u>Q</u><a>A</a><u>R</u><a>")
  }

  func testPlainText() throws {
    XCTAssertEqual(try format(templated: false).prompt([Message(.user, "Q")]), "<u>Q")
  }

  func testSystemText() throws {
    let turns = [Message(.system, "S"), Message(.user, "Q")]
    XCTAssertEqual(try format().prompt(turns), "<s>S</s><u>Q</u><a>")
    XCTAssertThrowsError(try format(system: false).prompt(turns)) {
      XCTAssertEqual($0 as? EdgeModelError, .noSystemText)
    }
  }

  func testWhatIsNoConversation() throws {
    for turns in [[], [Message(.assistant, "A")], [Message(.user, "Q"), Message(.user, "Q")]] {
      XCTAssertThrowsError(try format().prompt(turns)) {
        XCTAssertEqual($0 as? EdgeModelError, .notAConversation)
      }
    }
  }
}
