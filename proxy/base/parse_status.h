// The three outcomes of feeding bytes to an incremental parser.
#pragma once

namespace sluice {

enum class ParseStatus {
  kDone,      // one whole item was read
  kNeedMore,  // what came so far is fine, but the item is not complete
  kBad,       // the bytes break the protocol; the parser must not be fed again
};

}  // namespace sluice
