// A model whose folder EDGESDK_MODEL names is signed with the key that the package was made with, as version 5; those
// under EDGESDK_ATTACKED_MODELS were changed, each in the way that its name says.
import Foundation
import XCTest

@testable import EdgeModel

final class SignerTests: XCTestCase {
  private let original = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGESDK_MODEL"]!)
  private let attacked = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGESDK_ATTACKED_MODELS"]!)

  func testASignedModelIsOpened() throws {
    XCTAssertEqual(try ModelFolder(original).version, 5)
    XCTAssertNil(try ModelFolder(original, signer: nil).version)
    let packaged = try XCTUnwrap(Signer.packaged)
    XCTAssertEqual(packaged.oldest, 5)
    XCTAssertEqual(try ModelFolder(original, signer: Signer(key: packaged.key)).version, 5)
  }

  func testAnOlderModelAndAnotherKeyAreRefused() throws {
    let packaged = try XCTUnwrap(Signer.packaged)
    for signer in [Signer(key: packaged.key, oldest: 6), Signer(key: String(repeating: "0", count: 64)), Signer(key: "x")] {
      XCTAssertThrowsError(try ModelFolder(original, signer: signer)) { XCTAssert(isRefusal($0), "\($0)") }
    }
  }

  func testEveryAttackIsRefused() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: attacked.path)
    XCTAssertGreaterThan(names.count, 8)
    for name in names {
      let url = attacked.appendingPathComponent(name)
      if name == "one byte of the program changed" {
        XCTAssertThrowsError(try ModelFolder(url).verify()) {
          XCTAssertEqual($0 as? EdgeModelError, .damaged("model.pte"))
        }
      } else {
        XCTAssertThrowsError(try ModelFolder(url), name) { XCTAssert(isRefusal($0), "\(name): \($0)") }
      }
    }
  }

  private func isRefusal(_ error: Error) -> Bool {
    if case .refused? = error as? EdgeModelError { return true }
    return false
  }
}
