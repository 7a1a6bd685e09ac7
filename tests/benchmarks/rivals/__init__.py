"""Other people's memory rules, written anew from what is documented of them; found here by the simulation."""
