"""Pure verifiers that tasks share: answer grammars, numbers, math, boxes."""
