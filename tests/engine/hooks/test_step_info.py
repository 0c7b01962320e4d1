import torch


def test_the_log_has_the_mean_of_a_step_for_each_of_its_batches(make_runner):
    """Steps of 4 and 2 batches."""
    runner, outputs = make_runner(accumulative_counts=4), []
    step = runner.model.train_step
    runner.model.train_step = lambda *a, **k: (outputs.append(step(*a, **k)), outputs[-1])[1]
    runner.train()
    losses = torch.stack([output["loss"].detach() for output in outputs])
    expected = torch.cat([part.mean().expand(len(part)) for part in losses.split([4, 2, 4, 2])])
    logged = runner.message_hub.get_scalar("train/loss").data[0]
    torch.testing.assert_close(torch.tensor(logged, dtype=torch.float32), expected)
