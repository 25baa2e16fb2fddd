"""The deliberate mistakes that mutate.py makes, one at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One deliberate mistake: `old` becomes `new` in `file`, which must hold it once."""

    name: str
    file: str
    old: str
    new: str


LOSSES, CREDIT = "mmrl/train/losses.py", "mmrl/algorithms/stages/credit.py"
OBJECTIVE, CLIPPED = "mmrl/objective.py", "mmrl/objectives/clipped_ratio.py"
EPISODE, CUTS = "mmrl/rollout/episode.py", "mmrl/rollout/thinking.py"
LEARNER, OLD = "mmrl/train/learner.py", "mmrl/train/old_logprobs.py"
STATS = "mmrl/train/update_stats.py"
MUTATIONS = (
    Mutation(
        "swapped clip bounds",
        CLIPPED,
        "ratio.clamp(1 - self.low, 1 + self.high)",
        "ratio.clamp(1 - self.high, 1 + self.low)",
    ),
    Mutation(
        "maximum instead of minimum of the surrogates",
        CLIPPED,
        "(unbounded * advantages).minimum(",
        "(unbounded * advantages).maximum(",
    ),
    Mutation(
        "dual clip on positive advantages",
        CLIPPED,
        "floor.where(advantages < 0, surrogate)",
        "floor.where(advantages > 0, surrogate)",
    ),
    Mutation(
        "two-sided cap on the clipped ratio",
        CLIPPED,
        "(unbounded * advantages).minimum(bounded * advantages)",
        "(ratio * advantages).minimum(bounded * advantages)",
    ),
    Mutation(
        "mask lost in the reduction",
        LOSSES,
        "return torch.where(batch.mask, token_losses * batch.weights, 0.0).sum()",
        "return (token_losses * batch.weights.clamp(min=1e-3)).sum()",
    ),
    Mutation(
        "mask lost within sequences",
        OBJECTIVE,
        "kept = values.where(self.mask, 0.0)",
        "kept = values",
    ),
    Mutation(
        "masked tokens reach the loss",
        LOSSES,
        "    logprobs = torch.where(mask, logprobs, 0.0)\n",
        "",
    ),
    Mutation(
        "denominator counted in the micro-batch",
        LEARNER,
        "[m.sample for m in members], [m.weights for m in members], logprobs, share",
        "[m.sample for m in members], "
        "token_weights([m.sample for m in members], self._algorithm.reducer), logprobs, share",
    ),
    Mutation(
        "empty responses left out of the mean",
        LOSSES,
        "    count = max(len(lengths), 1)\n",
        "    count = max(int((lengths > 0).sum()), 1)\n",
    ),
    Mutation(
        "token mean over sequences",
        LOSSES,
        "1.0 / max(float(lengths.sum()), 1.0)",
        "1.0 / max(float(lengths.max(initial=0)) * count, 1.0)",
    ),
    Mutation(
        "constant reducer without the batch size",
        LOSSES,
        "1.0 / (count * reducer.length)",
        "1.0 / reducer.length",
    ),
    Mutation(
        "CISPO with a gradient through its weight",
        "mmrl/objectives/bounded_weight.py",
        "weight = batch.log_ratio.detach().exp()",
        "weight = batch.log_ratio.exp()",
    ),
    Mutation(
        "GSPO-token with a gradient through its level",
        CLIPPED,
        "level = batch.sequence_mean(log_ratio).detach()[batch.sequence]",
        "level = batch.sequence_mean(log_ratio)[batch.sequence]",
    ),
    Mutation(
        "GSPO by the sum of log-ratios",
        CLIPPED,
        "return batch.sequence_mean(log_ratio).exp()[batch.sequence]",
        "return batch.sequence_sum(log_ratio).exp()[batch.sequence]",
    ),
    Mutation(
        "k3 with the sign of d turned",
        OBJECTIVE,
        "_expm1(-difference) + difference",
        "_expm1(difference) - difference",
    ),
    Mutation(
        "straight-through with the wrong slope",
        OBJECTIVE,
        "return slope + (value - slope).detach()",
        "return value",
    ),
    Mutation(
        "GVPO over G instead of G - 1",
        "mmrl/objectives/group_regression.py",
        "(2 * (len(members) - 1))",
        "(2 * len(members))",
    ),
    Mutation(
        "NFT without its clamped value",
        "mmrl/objectives/implied_policies.py",
        "bounded = implied + (implied.clamp(min=self.epsilon) - implied).detach()",
        "bounded = implied",
    ),
    Mutation(
        "preference of the rejected answer",
        "mmrl/objectives/margins.py",
        "loss(members[better], members[worse])",
        "loss(members[worse], members[better])",
    ),
    Mutation(
        "a pair of rank 0 and another in HyPO",
        "mmrl/objectives/online_kl.py",
        "return over_groups(batch, ratio, of_pairs) + self.online * kl",
        "return super().losses(batch) + self.online * kl",
    ),
    Mutation(
        "EXO with a forward KL",
        "mmrl/objectives/exact_optimisation.py",
        "return (own.exp() * (own - aim)).sum()",
        "return (aim.exp() * (aim - own)).sum()",
    ),
    Mutation(
        "WPO with a gradient through its weights",
        "mmrl/objectives/on_policy_weights.py",
        "batch.sequence_mean(batch.logprobs.detach() - batch.beside)",
        "batch.sequence_mean(batch.logprobs - batch.beside)",
    ),
    Mutation(
        "KTO with one sign for good and bad",
        "mmrl/objectives/unpaired.py",
        "self.bad * gain.sigmoid()",
        "self.bad * (-gain).sigmoid()",
    ),
    Mutation(
        "P3O with swapped bounds",
        "mmrl/objectives/relative_policy_gradient.py",
        "own.clamp(1 - self.low, 1 + self.high)",
        "own.clamp(1 - self.high, 1 + self.low)",
    ),
    Mutation(
        "INPO with reference and old policy exchanged",
        "mmrl/objectives/nash_pairs.py",
        "share * batch.reference + (1 - share) * batch.old",
        "share * batch.old + (1 - share) * batch.reference",
    ),
    Mutation(
        "the KL of mirror descent the other way",
        "mmrl/objectives/mirror_descent.py",
        "kl = ratio * batch.log_ratio - ratio + 1",
        "kl = ratio - 1 - batch.log_ratio",
    ),
    Mutation(
        "answers of equal rewards as a pair",
        "mmrl/objectives/margins.py",
        "label[:, None] - label[None] > least",
        "label[:, None] - label[None] >= least",
    ),
    Mutation(
        "biased standard deviation",
        CREDIT,
        "rewards[valid].std(ddof=normalise.ddof)",
        "rewards[valid].std()",
    ),
    Mutation(
        "unscorable answers in the baseline as 0",
        CREDIT,
        "return np.where(valid, rewards - rewards[valid].mean(), 0.0)",
        "return np.where(valid, rewards - np.nan_to_num(rewards).mean(), 0.0)",
    ),
    Mutation(
        "unscorable answers trained on",
        CREDIT,
        "mask=known[i] & response.written,",
        "mask=response.written,",
    ),
    Mutation(
        "leave-one-out that leaves none out",
        CREDIT,
        "centre(rewards) * count / (count - 1)",
        "centre(rewards)",
    ),
    Mutation(
        "plain mean for the length-weighted one",
        CREDIT,
        "(weights * known).sum() / weights.sum()",
        "known[valid].mean()",
    ),
    Mutation(
        "reward at the first token",
        CREDIT,
        "tokens[-1:] += reward",
        "tokens[:1] += reward",
    ),
    Mutation(
        "returns that forget the token itself",
        CREDIT,
        "        running = float(rewards[t]) + gamma * running\n        returns[t] = running\n",
        "        returns[t] = running\n        running = float(rewards[t]) + gamma * running\n",
    ),
    Mutation(
        "whitening over masked tokens",
        CREDIT,
        "kept = whiten([s.advantages[s.mask] for s in samples], ddof, epsilon)",
        "every = whiten([s.advantages for s in samples], ddof, epsilon)\n"
        "    kept = [w[s.mask] for w, s in zip(every, samples)]",
    ),
    Mutation(
        "variants of a question apart",
        CREDIT,
        "if any(p.key != sample.key or p.variant == sample.variant for p in previous):",
        "if previous:",
    ),
    Mutation(
        "local advantage everywhere",
        "mmrl/algorithms/stages/variants.py",
        "samples += pair(group, across, place, other.prompt, tie)",
        "samples += pair(group, own, place, other.prompt, tie)",
    ),
    Mutation(
        "responses under their own prompt only",
        "mmrl/algorithms/stages/variants.py",
        "samples += pair(group, across, place, other.prompt, tie)",
        "samples += pair(group, across, place, tie=tie)",
    ),
    Mutation(
        "borrowed old log-probs of another prompt",
        CREDIT,
        "old_logprobs=None if away or np.isnan",
        "old_logprobs=None if np.isnan",
    ),
    Mutation(
        "span one token late",
        "mmrl/algorithms/stages/turns.py",
        "tokens[span.start : span.end] = value",
        "tokens[span.start + 1 : span.end + 1] = value",
    ),
    Mutation(
        "step span one token short",
        "mmrl/algorithms/stepgrpo.py",
        "tokens[span.start : span.end] += next(values)",
        "tokens[span.start : span.end - 1] += next(values)",
    ),
    Mutation(
        "what an environment told trained on",
        "mmrl/types.py",
        "mask = np.full(len(self.ids), self.episode is None)",
        "mask = np.full(len(self.ids), True)",
    ),
    Mutation(
        "returns that count what was told as time",
        CREDIT,
        "over_written(response, lambda r: returns_to_go(r, self.gamma), rewards)",
        "returns_to_go(rewards, self.gamma) * response.written",
    ),
    Mutation(
        "penalties of what was told",
        "mmrl/algorithm.py",
        "np.where(response.written, kl.estimate(response.logprobs, ref), 0.0)",
        "kl.estimate(response.logprobs, ref)",
    ),
    Mutation(
        "turns asked without what was told",
        EPISODE,
        "continued(self.prompt, np.concatenate(self.ids[-2:]))",
        "continued(self.prompt, self.ids[-2])",
    ),
    Mutation(
        "turns one place late",
        EPISODE,
        "prompt.next_position + np.arange(len(ids)), (axes",
        "prompt.next_position + 1 + np.arange(len(ids)), (axes",
    ),
    Mutation(
        "every turn from the same random numbers",
        EPISODE,
        "seed + turn * SEEDS_OF_A_TURN",
        "seed",
    ),
    Mutation(
        "a turn paid for the turn before",
        EPISODE,
        "self.spans[-1] = replace(self.spans[-1], value=observation.reward)",
        "self.spans[0] = replace(self.spans[0], value=observation.reward)",
    ),
    Mutation(
        "a turn in the state it led to",
        EPISODE,
        "TokenSpan(at, at + len(answer.ids), None, self.observation.key)",
        "TokenSpan(at, at + len(answer.ids), None, f'{self.observation.key}+')",
    ),
    Mutation(
        "an episode over its tokens",
        EPISODE,
        "if len(tokens) >= self.room:",
        "if len(tokens) > self.room + 8:",
    ),
    Mutation(
        "thinking cut a token late",
        CUTS,
        "thought = chain.ids[:place]",
        "thought = chain.ids[: place + 1]",
    ),
    Mutation(
        "an unscorable cut worth 0",
        CUTS,
        'return float(known.mean()) if len(known) else float("nan")',
        "return float(known.mean()) if len(known) else 0.0",
    ),
    Mutation(
        "key steps as substrings",
        "mmrl/algorithms/stages/key_steps.py",
        "any(_contains(spoken, tokens(a)) for a in _alternatives(step))",
        'any(a in " ".join(spoken) for a in _alternatives(step))',
    ),
    Mutation(
        "steps in any order",
        "mmrl/algorithms/stages/key_steps.py",
        "numbers != list(range(1, len(numbers) + 1))",
        "sorted(numbers) != numbers",
    ),
    Mutation(
        "key steps paid without an answer",
        "mmrl/algorithms/stepgrpo.py",
        'if answered or self.variant == "code" else 0.0',
        "if True else 0.0",
    ),
    Mutation(
        "filter that keeps solved groups",
        "mmrl/algorithms/stages/editors.py",
        "return self.low < accuracy < self.high",
        "return self.low < accuracy <= self.high",
    ),
    Mutation(
        "filter that asks for nothing",
        "mmrl/algorithms/stages/editors.py",
        "missing = context.prompts_per_step - len(kept)",
        "missing = 0",
    ),
    Mutation(
        "pruning of the largest advantages",
        "mmrl/algorithms/stages/refiners.py",
        'np.argsort(-sizes, kind="stable")',
        'np.argsort(sizes, kind="stable")',
    ),
    Mutation(
        "truncated responses in the loss",
        "mmrl/algorithms/stages/refiners.py",
        "if s.response.truncated else s",
        "if False else s",
    ),
    Mutation(
        "replayed responses taken for fresh ones",
        CREDIT,
        "older=i in group.extra.replayed",
        "older=False",
    ),
    Mutation(
        "KL added to the reward",
        "mmrl/algorithm.py",
        "group.rewards - np.array([p.sum() for p in penalties])",
        "group.rewards + np.array([p.sum() for p in penalties])",
    ),
    Mutation(
        "second pass on the tokens of the first",
        "mmrl/algorithm.py",
        "self.filters[index % len(self.filters)]",
        "self.filters[0]",
    ),
    Mutation(
        "old log-probs of cross pairs not computed",
        LEARNER,
        "wanted = unknown if several or corrected else set()",
        "wanted = unknown if corrected else set()",
    ),
    Mutation(
        "a pass without a token steps all the same",
        LEARNER,
        "if any(sample.mask.any() for sample in chosen):",
        "if True:",
    ),
    Mutation(
        "groups split between micro-batches",
        "mmrl/policy/packing.py",
        "units = _by_group(rows) if whole_groups else [[row] for row in rows]",
        "units = [[row] for row in rows]",
    ),
    Mutation(
        "clip counted whatever the advantage's sign",
        CLIPPED,
        "above = ((advantages > 0) & (ratio > near)) | ((advantages < 0) & (ratio > far))",
        "above = (advantages != 0) & (ratio > near)",
    ),
    Mutation(
        "clip counted without the dual bound",
        CLIPPED,
        "far = min(far, self.dual)",
        "pass",
    ),
    Mutation(
        "clip of a sequence counted by token",
        CLIPPED,
        "ratio, advantages = self._ratio(batch).detach(), batch.advantages",
        "ratio, advantages = batch.log_ratio.detach().exp(), batch.advantages",
    ),
    Mutation(
        "old log-probs from the engine",
        OLD,
        "(sample.older or (several and exact))",
        "(sample.older or several)",
    ),
    Mutation(
        "old log-probs of older weights thrown away",
        OLD,
        "(sample.older or (several and exact))",
        "(several and exact)",
    ),
    Mutation(
        "half precision taken for exact",
        LEARNER,
        "self._exact = policy.model.dtype == torch.float32 and not other_engine",
        "self._exact = not other_engine",
    ),
    Mutation(
        "old log-probs in other micro-batches",
        LEARNER,
        "values = self.score([sample for _, sample in trained], policy, whole)",
        "every = self.score(samples, policy, whole)\n            values = [every[i] for "
        "i, _ in trained]",
    ),
    Mutation(
        "rate of the next update logged",
        LEARNER,
        "self._backend.rate(place)",
        "self._backend.rate(place + 1)",
    ),
    Mutation(
        "schedule by updates made",
        LEARNER,
        "place = (step - 1) * plan.planned + number",
        "place = self._backend.updates",
    ),
    Mutation(
        "KL of rewards not measured",
        LEARNER,
        "wanted = algorithm.loss_needs_reference or algorithm.rewards_need_reference",
        "wanted = algorithm.loss_needs_reference",
    ),
    Mutation(
        "masked tokens in the means",
        STATS,
        "added = float(each.detach()[batch.mask].sum())",
        "added = float(each.detach().sum())",
    ),
    Mutation(
        "log-probs looked up by object",
        LEARNER,
        "scored[member.place] = piece",
        "scored[{id(s): i for i, s in enumerate(samples)}[id(member.sample)]] = piece",
    ),
)
