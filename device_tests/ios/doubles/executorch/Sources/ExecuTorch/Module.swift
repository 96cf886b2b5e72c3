// What of ExecuTorchModule.h, ExecuTorch+Module.swift and ExecuTorch+Tensor.swift the benchmark calls, over a program
// that drives the real runtime: EDGESDK_MODULE is its command line, with tabs between words.
import Foundation

public enum ModuleLoadMode: Int {
  case file, mmap, mmapUseMlock, mmapUseMlockIgnoreErrors
}

public protocol Scalar {}
extension Int64: Scalar {}
extension Float: Scalar {}

public protocol ValueConvertible {}

public final class Tensor<T: Scalar>: ValueConvertible {
  public let shape: [Int]
  private let values: [T]

  public init(_ scalars: [T], shape: [Int] = [], dimensionOrder: [Int] = [], strides: [Int] = []) {
    self.shape = shape.isEmpty ? [scalars.count] : shape
    precondition(scalars.count == self.shape.reduce(1, *))
    values = scalars
  }

  public func scalars() -> [T] { values }
}

public class Module: NSObject {
  private let path: String
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()

  public init(filePath: String, loadMode: ModuleLoadMode) {
    path = filePath
  }

  deinit { try? input.fileHandleForWriting.close() }

  public func load(_ methodName: String) throws {
    precondition(methodName == "forward")
    let words = ProcessInfo.processInfo.environment["EDGESDK_MODULE"]!.split(separator: "\t").map(String.init)
    process.executableURL = URL(fileURLWithPath: words[0])
    process.arguments = words.dropFirst() + [path]
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  public func forward(_ inputs: ValueConvertible...) throws -> Tensor<Float> {
    let tokens = inputs[0] as! Tensor<Int64>, position = inputs[1] as! Tensor<Int64>
    precondition(tokens.shape == [1, tokens.scalars().count] && position.shape == [1])
    let numbers = position.scalars() + tokens.scalars()
    input.fileHandleForWriting.write(Data((numbers.map(String.init).joined(separator: " ") + "\n").utf8))
    let count = try read(4).withUnsafeBytes { Int($0.loadUnaligned(as: UInt32.self)) }
    let logits = try read(4 * count).withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    return Tensor<Float>(logits, shape: [1, count])
  }

  private func read(_ count: Int) throws -> Data {
    guard let data = try output.fileHandleForReading.read(upToCount: count), data.count == count else {
      throw NSError(domain: "ExecuTorch", code: 35, userInfo: [NSLocalizedDescriptionKey: "the program ended"])
    }
    return data
  }
}
